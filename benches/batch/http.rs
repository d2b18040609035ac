//! `client::http` beside bare `ureq`, on loopback.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar::client::http::{Download, HttpClient, RateLimit};

use crate::in_turn;

struct Scale {
    rounds: usize,
    requests: usize,
    bytes: usize,
}

const FULL: Scale = Scale { rounds: 7, requests: 5_000, bytes: 256 << 20 };
const TEST: Scale = Scale { rounds: 1, requests: 20, bytes: 2 << 20 };
const GOAL: f64 = 0.9;

/// Microseconds of a small GET on a kept connection, and what ours adds. Ours has its default time
/// limits; the baseline has those as well, and once more none at all.
pub(crate) fn requests(test: bool) {
    let scale = if test { TEST } else { FULL };
    let url = serve(scale.bytes);
    let plain = HttpClient::builder().environment_proxy(false);
    let ours = plain.build().expect("sound settings");
    let limited = HttpClient::builder().environment_proxy(false).rate_limit(RateLimit::none().max_concurrent(8));
    let limited = limited.build().expect("sound settings");
    let second = Some(Duration::from_secs(60));
    let config = ureq::Agent::config_builder().proxy(None);
    let bare = config.build().new_agent();
    let config = ureq::Agent::config_builder().proxy(None);
    let config = config.timeout_global(second).timeout_connect(second).timeout_resolve(second);
    let timed = config.timeout_recv_response(second).timeout_per_read(second).build().new_agent();

    let url = format!("{url}/small");
    let by_ureq =
        |agent: &ureq::Agent| agent.get(&url).call().expect("a reply").into_body().read_to_vec().expect("a body");
    let by_us = |client: &HttpClient| client.get(&url).send().expect("a reply").into_bytes();
    type Arm<'a> = (&'a str, Box<dyn Fn() -> Vec<u8> + 'a>);
    let arms: [Arm<'_>; 4] = [
        ("fulmar", Box::new(|| by_us(&ours))),
        ("fulmar, 8 at once", Box::new(|| by_us(&limited))),
        ("ureq, same time limits", Box::new(|| by_ureq(&timed))),
        ("ureq, no time limit", Box::new(|| by_ureq(&bare))),
    ];
    println!("\nrequest [us]");
    let medians = in_turn(
        scale.rounds,
        arms.iter().map(|(name, arm)| {
            (*name, || {
                let start = Instant::now();
                for _ in 0..scale.requests {
                    black_box(arm());
                }
                start.elapsed().as_secs_f64() * 1e6 / scale.requests as f64
            })
        }),
    );
    println!("{:<28} {:.1} us", "more than ureq, same limits", medians[0] - medians[2]);
}

/// MiB/s into a file that is synced, against a copy of `ureq`'s reader into a file, synced as well.
pub(crate) fn downloads(test: bool) {
    let scale = if test { TEST } else { FULL };
    let url = serve(scale.bytes);
    let folder = std::env::temp_dir().join(format!("fulmar-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let url = format!("{url}/large");
    let ours = HttpClient::builder().environment_proxy(false).build().expect("sound settings");
    let bare = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let rate = |seconds: f64| (scale.bytes >> 20) as f64 / seconds;
    type Arm<'a> = (&'a str, Box<dyn Fn() -> f64 + 'a>);
    let arms: [Arm<'_>; 2] = [
        (
            "fulmar",
            Box::new(|| {
                rate(timed(&folder, |_| drop(ours.get(&url).download(&Download::new(&folder, "x")).expect("a file"))))
            }),
        ),
        (
            "ureq and a file",
            Box::new(|| {
                rate(timed(&folder, |path| {
                    let mut file = File::create(path).expect("a file");
                    let reply = bare.get(&url).call().expect("a reply");
                    std::io::copy(&mut reply.into_body().into_reader(), &mut file).expect("a body");
                    file.sync_all().expect("synced");
                }))
            }),
        ),
    ];
    println!("\ndownload [MiB/s]");
    let medians = in_turn(scale.rounds, arms.iter().map(|(name, arm)| (*name, arm)));
    let ratio = medians[0] / medians[1];
    println!("{:<28} {ratio:.2}  goal >= {GOAL}: {}", "of the baseline", if ratio >= GOAL { "yes" } else { "NO" });
    let _ = std::fs::remove_dir_all(&folder);
}

/// Each into a new file: writing over one that is there is another thing.
fn timed(folder: &Path, download: impl Fn(&PathBuf)) -> f64 {
    let path = folder.join("x");
    let _ = std::fs::remove_file(&path);
    let start = Instant::now();
    download(&path);
    start.elapsed().as_secs_f64()
}

/// A server that keeps connections: `/small` is a few bytes, `/large` is as large as it gets here.
fn serve(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.expect("a connection"), bytes));
        }
    });
    url
}

fn answer(mut stream: TcpStream, bytes: usize) {
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let piece = vec![7; 1 << 20];
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if reader.read_line(&mut request).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = if request.starts_with("GET /large") { bytes } else { 16 };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let mut left = length;
        while left > 0 {
            let count = left.min(piece.len());
            if stream.write_all(&piece[..count]).is_err() {
                return;
            }
            left -= count;
        }
    }
}
