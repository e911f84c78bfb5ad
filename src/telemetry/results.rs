//! Metrics of answers that are too large for the job store, and kept in files.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::catalogue::Catalogue;
use super::metrics::Metrics;

/// Why a large answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// More than is kept of one.
    TooLarge,
    /// The files have reached their quota, or the disk its end.
    NoRoom,
}

#[derive(Debug)]
pub(super) struct ResultMetrics {
    files: IntGauge,
    bytes: IntGauge,
    unkept: IntCounterVec,
    dropped: IntCounter,
}

impl ResultMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        ResultMetrics {
            files: catalogue
                .gauge("kept_answers", "Answers in files of this process, for who shows the payment again, when last looked at."),
            bytes: catalogue.gauge("kept_answers_bytes", "Bytes of such files, when last looked at."),
            unkept: catalogue.counters(
                "answers_not_kept_total",
                &["why"],
                "Large answers that are not kept: too_large (paid.result_file_max) or no_room (paid.result_files, the disk).",
            ),
            dropped: catalogue.counter(
                "kept_answers_dropped_total",
                "Kept answers that were let go before their time, to make room for others.",
            ),
        }
    }
}

impl Metrics {
    /// So many answers are kept now, of so many bytes.
    pub fn answers_kept(&self, files: usize, bytes: u64) {
        self.results.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.results.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An answer is not kept.
    pub fn answer_unkept(&self, why: Unkept) {
        let why = match why {
            Unkept::TooLarge => "too_large",
            Unkept::NoRoom => "no_room",
        };
        self.results.unkept.with_label_values(&[why]).inc();
    }

    /// A kept answer made room for another.
    pub fn answer_dropped(&self) {
        self.results.dropped.inc();
    }
}
