//! Where jobs live, and the deadlines and sizes of paid work.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::IpBlock;

/// Where finished jobs are kept when they are old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Beside an embedded store; nowhere for another.
    Usual,
    /// Nowhere: the store forgets them.
    Off,
    /// In this folder.
    At(PathBuf),
}

/// Where jobs live.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file, one process.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Redis, for any number of gateways.
    Redis {
        /// `redis://` or `rediss://`, or one of both with `+sentinel`; with credentials.
        url: SecretString,
        /// First part of every key.
        prefix: String,
    },
}

/// Deadlines and sizes of paid work.
#[derive(Clone, Debug)]
pub struct Paid {
    /// JSON body at most, in bytes.
    pub max_json_body: u64,
    /// JSON document to store, and program to run, at most, in bytes: they are checked whole.
    pub max_document: u64,
    /// Raw body, and file of a form, at most, in bytes.
    pub max_raw_body: u64,
    /// Files in one form at most; one refuses several.
    pub max_files: u16,
    /// Bytes of paid request bodies held in temporary files at once, over all requests.
    pub max_spool: u64,
    /// Where those files are.
    pub spool_dir: PathBuf,
    /// Bytes of paid request bodies held in memory at once, over all requests.
    pub max_body_memory: u64,
    /// `{"url": …}` is taken in place of data.
    pub fetch_urls: bool,
    /// Addresses that may be fetched from though they are not public.
    pub fetch_private: Vec<IpBlock>,
    /// Clients may have a URL told when their job is done.
    pub webhooks: bool,
    /// Hosts that may be told; empty: all that are public. `*.example.com` is everything below it.
    pub webhook_hosts: Vec<String>,
    /// Addresses that may be told though they are not public.
    pub webhook_private: Vec<IpBlock>,
    /// `maxTimeoutSeconds` of challenges.
    pub max_timeout: Duration,
    /// Deadline of the provider's whole part.
    pub work_timeout: Duration,
    /// At this time before the authorization lapses, it is settled or given up.
    pub settle_margin: Duration,
    /// Brokered work of a higher price is charged before it is done, whatever its route says. In millionths of a dollar.
    pub upfront_above: Option<u64>,
    /// How long finished jobs and their answers are kept.
    pub retention: Duration,
    /// Where jobs are kept after that.
    pub archive: Archive,
    /// The largest answer that is kept, in bytes.
    pub result_max: u64,
    /// The largest answer that is kept in a file of the gateway that gave it, in bytes. `None`: none is.
    pub result_file_max: Option<u64>,
    /// All of those together, in bytes.
    pub result_files: u64,
    /// How long a job may go without a sign of life before another process takes it.
    pub lease: Duration,
    /// Paid jobs running at once at most; 503 above.
    pub max_jobs: usize,
    /// Header of a payment at most, in bytes (431 above).
    pub max_payment_header: usize,
    /// First path segment, without slashes, of `GET /status/{id}`; likewise below for `/job/{id}` and `/files/{id}`.
    /// `None` switches it off.
    pub status_path: Option<String>,
    /// See `status_path`.
    pub job_path: Option<String>,
    /// See `status_path`.
    pub files_path: Option<String>,
    /// The same for `GET /jobs/{id}` and `/jobs/{id}/events`. Without it, nobody is answered before his job is done.
    pub jobs_path: Option<String>,
    /// Clients that wait at `/jobs/{id}` at once at most; 503 above.
    pub max_watchers: usize,
}

/// The largest answer that can be kept, in bytes: a job store is not made for more.
pub const LARGEST_KEPT: u64 = 16 << 20;
