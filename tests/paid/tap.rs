//! Stands in front of a service, passes everything on, and remembers what was sent to it, byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const UPLOAD: &[u8] = b"POST /upload ";

/// A running tap. Its threads end with their connections.
pub(crate) struct Tap {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

/// What was sent on one connection, and whether that was all.
#[derive(Default)]
struct Sent {
    bytes: Vec<u8>,
    ended: bool,
}

impl Tap {
    /// In front of the service at this URL.
    pub(crate) fn before(url: &str) -> Tap {
        let service: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let log = Arc::clone(&sent);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(service) = TcpStream::connect(service) else { continue };
                let at = {
                    let mut log = log.lock().unwrap();
                    log.push(Sent::default());
                    log.len() - 1
                };
                let (from, to) = (client.try_clone().unwrap(), service.try_clone().unwrap());
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    copy(from, to, |bytes| log.lock().unwrap()[at].bytes.extend_from_slice(bytes));
                    log.lock().unwrap()[at].ended = true;
                });
                std::thread::spawn(move || copy(service, client, |_| {}));
            }
        });
        Tap { address, sent }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the connection of an upload has ended that [`Tap::uploads`] has not told of yet.
    pub(crate) fn broken_off(&self) -> bool {
        let sent = self.sent.lock().unwrap();
        sent.iter().any(|sent| sent.ended && memchr::memmem::find(&sent.bytes, UPLOAD).is_some())
    }

    /// The uploads that were begun since the last time: bytes that were sent, and whether the last one was among them.
    /// Each is the last request on its connection, or followed by a short one.
    pub(crate) fn uploads(&self) -> Vec<(usize, bool)> {
        // The connections go on.
        let sent: Vec<_> =
            self.sent.lock().unwrap().iter_mut().map(|sent| std::mem::take(&mut sent.bytes)).collect();
        let uploads = sent.iter().filter_map(|bytes| {
            let begins = memchr::memmem::find(bytes, UPLOAD)?;
            let upload = &bytes[begins..];
            let boundary = &upload[memchr::memmem::find(upload, b"boundary=").unwrap() + 9..];
            let boundary = &boundary[..memchr::memchr(b'\r', boundary).unwrap()];
            let last = [b"\r\n--", boundary, b"--"].concat();
            Some((upload.len(), memchr::memmem::find(upload, &last).is_some()))
        });
        uploads.collect()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // Whichever side goes, the other is told.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
