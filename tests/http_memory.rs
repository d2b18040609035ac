//! Memory stays flat, whatever the size of a download: in a process of its own, whose peak is nobody else's.
#![cfg(all(feature = "http", target_os = "linux"))]

use std::io::{Read, Write};
use std::net::TcpListener;

use fulmar::client::http::{Download, HttpClient};

const SIZE: usize = 256 << 20;
const PIECE: usize = 1 << 20;

#[test]
fn a_download_of_256_mib_takes_a_few_mib_of_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client");
        assert!(stream.read(&mut [0; 4096]).expect("a request") > 0);
        write!(stream, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {SIZE}\r\n\r\n").expect("sent");
        let piece = vec![7; PIECE];
        for _ in 0..SIZE / PIECE {
            stream.write_all(&piece).expect("sent");
        }
    });
    let folder = std::env::temp_dir().join(format!("fulmar-memory-{}", std::process::id()));
    let client = HttpClient::builder().environment_proxy(false).build().expect("sound settings");
    let before = peak();
    let file = client.get(&url).download(&Download::new(&folder, "x"));
    let after = peak();
    server.join().expect("no panic");
    let size = std::fs::metadata(folder.join("x")).map(|found| found.len());
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(file.expect("a file").bytes, SIZE as u64);
    assert_eq!(size.expect("a file"), SIZE as u64);
    // The server's piece and its thread's stack are in it.
    assert!(after - before < 8 << 10, "{} KiB more at the peak than before", after - before);
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
