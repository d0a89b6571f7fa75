//! A proxy before an API that does to some calls what a network, or the real API, may do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What it does with a call.
#[derive(Clone)]
pub(crate) enum Does {
    /// It has the call done, and loses the answer.
    Loses,
    /// It answers this itself: status and what else is in the head, and the body.
    Says(&'static str, String),
    /// It says nothing.
    Hangs,
}

/// It does that with the calls of one action, until it is dropped.
pub(crate) struct Proxy {
    at: SocketAddr,
    ends: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(api: SocketAddr, action: &'static str, does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        std::thread::spawn(move || {
            let mut hung = vec![];
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                hung.extend(serve(client, api, action, &does));
            }
        });
        Self { at, ends }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.at)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.at);
    }
}

/// Serves one call; its connection is given back if nothing is to be said.
fn serve(mut client: TcpStream, api: SocketAddr, action: &str, does: &Does) -> Option<TcpStream> {
    let request = message(&mut client)?;
    let text = String::from_utf8_lossy(&request);
    let is_meant = text.contains(&format!("Action={action}&")) || text.starts_with(action);
    match does {
        Does::Says(status, body) if is_meant => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let _ =
                client.write_all(head.as_bytes()).and_then(|()| client.write_all(body.as_bytes()));
            None
        }
        Does::Hangs if is_meant => Some(client),
        Does::Loses | Does::Says(..) | Does::Hangs => {
            let mut server = TcpStream::connect(api).ok()?;
            server.write_all(&request).ok()?;
            let answer = message(&mut server)?;
            if !is_meant {
                client.write_all(&answer).ok()?;
            }
            None
        }
    }
}

/// Head and body of one message.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut said, mut part) = (vec![], [0; 4096]);
    loop {
        let count = stream.read(&mut part).ok()?;
        said.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&said).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some(said);
            }
        }
        if count == 0 {
            return None;
        }
    }
}

/// Posts a text.
pub(crate) fn post(to: SocketAddr, path: &str, body: &str) {
    let mut stream = TcpStream::connect(to).expect("it answers");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: moto\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it is heard");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it answers");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}
