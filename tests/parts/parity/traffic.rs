//! One client for all that Envoy listens to, and the Redis behind it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

#[derive(Deserialize)]
struct Request {
    to: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// One round.
pub(crate) fn drive(ports: &BTreeMap<&str, u16>) {
    let requests: Vec<Request> = serde_saphyr::from_str(include_str!("requests.yaml")).unwrap();
    for Request { to, path, headers } in &requests {
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        text.extend(headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]));
        text.push_str("\r\n");
        let address = match to.as_str() {
            "PORT_HTTP6" => SocketAddr::from((Ipv6Addr::LOCALHOST, ports[to.as_str()])),
            to => SocketAddr::from(([127, 0, 0, 1], ports[to])),
        };
        assert!(exchange(address, text.as_bytes()).starts_with(b"HTTP/1.1 "), "{path}");
    }
    let send = |port: &str, bytes: &[u8]| exchange(SocketAddr::from(([127, 0, 0, 1], ports[port])), bytes);
    send("PORT_HTTP", b"\x01\x02 nonsense\r\n\r\n");
    send("PORT_TCP", b"GET /via-tcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    for command in [&["PING"][..], &["SET", "a", "1"], &["GET", "a"], &["INCR", "a"], &["NOSUCH", "a"]] {
        let words: Vec<_> = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        send("PORT_REDIS", format!("*{}\r\n{}", words.len(), words.concat()).as_bytes());
    }
    send("PORT_MONGO", &mongo_query("db.books", &[5, 0, 0, 0, 0]));
    send("PORT_MONGO", &mongo_query("db.$cmd", b"\x10\0\0\0\x10count\0\x01\0\0\0\0"));
}

/// Sends, and reads until nothing more comes for a while.
fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(bytes).unwrap();
    let patience = if bytes.starts_with(b"GET") { Duration::from_secs(5) } else { Duration::from_millis(300) };
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = Vec::new();
    // The end of the patience is the end of the answer.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// An `OP_QUERY` message.
fn mongo_query(collection: &str, document: &[u8]) -> Vec<u8> {
    let number = |number: usize| i32::try_from(number).unwrap().to_le_bytes();
    let body = [&number(0), collection.as_bytes(), &[0], &number(0), &number(1), document].concat();
    [&number(16 + body.len()), &number(7), &number(0), &number(2004), &body[..]].concat()
}

/// A Redis that says something to each command, until the test program ends.
pub(crate) fn serve_redis(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        // Every command is a list of words: `*2`, the length of the first, the first.
        let text = String::from_utf8_lossy(&bytes[..read]).to_uppercase();
        for command in text.split('*').skip(1) {
            let reply: &[u8] = match command.lines().nth(2) {
                Some("PING") => b"+PONG\r\n",
                Some("GET") => b"$-1\r\n",
                Some("INCR") => b"-ERR no\r\n",
                Some(_) => b"+OK\r\n",
                None => continue,
            };
            if stream.write_all(reply).is_err() {
                return;
            }
        }
    }
}
