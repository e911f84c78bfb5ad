//! nginx as a proxy that streams request bodies, as it is set up for large uploads. One worker: its process is measured.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running nginx; ends when it is dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Nginx {
    /// The process that does the work.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn start(upstream: SocketAddr) -> Nginx {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
         events {{ worker_connections 64; }}
         http {{
             access_log off;
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f;
             uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
             server {{
                 listen {address};
                 location / {{
                     client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
                     proxy_pass http://{upstream};
                 }}
             }}
         }}"
    );
    std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let process = Command::new("nginx")
        .args(["-p", &path.to_string(), "-c", "nginx.conf", "-e", "error.log"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let nginx = Nginx { address, process, _folder: folder };
    let give_up = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < give_up, "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    nginx
}
