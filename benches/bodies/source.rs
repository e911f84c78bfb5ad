//! A server that has what a URL names: as many MiB as its path says, made while they are read.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::payload::{MIB, piece};

/// A running source. Its threads end with the program.
pub(crate) struct Source(SocketAddr);

impl Source {
    pub(crate) fn start() -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || serve(stream));
            }
        });
        Source(address)
    }

    pub(crate) fn url(&self, mib: usize) -> String {
        format!("http://{}/{mib}", self.0)
    }
}

/// One request a connection: the gateway uses none twice.
fn serve(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    lines.find(String::is_empty)?;
    let (method, rest) = first.split_once(" /")?;
    let mib: usize = rest.split(' ').next()?.parse().ok()?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        mib * MIB
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method == "GET" {
        let piece = piece(MIB);
        for _ in 0..mib {
            stream.write_all(&piece).ok()?;
        }
    }
    Some(())
}
