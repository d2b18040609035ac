//! Replies made at random, whole, cut and damaged: what is whole is read as it is, what is cut never counts as whole, and whatever
//! comes, the client comes to an end. A failure prints its seed, and `FULMAR_SEED=seed` repeats it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use fulmar::client::http::{Download, HttpClient, HttpErrorKind, Timeouts};

use super::{Folder, quick, soon};

const ROUNDS: u64 = 400;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

fn for_all(property: impl Fn(&mut Random)) {
    let told = std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let first = told.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    for round in 0..if told.is_some() { 1 } else { ROUNDS } {
        let seed = first.wrapping_add(round);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(&mut Random(seed)))) {
            println!("FULMAR_SEED={seed} repeats it");
            resume_unwind(panic);
        }
    }
}

/// A server that says to one connection after another what it is handed, in pieces, and hangs up.
struct Talker {
    url: String,
    scripts: Sender<Vec<Vec<u8>>>,
}

impl Talker {
    fn start() -> Talker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (scripts, lines) = channel::<Vec<Vec<u8>>>();
        std::thread::spawn(move || {
            for pieces in lines {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let _ = stream.set_nodelay(true);
                let mut request = [0; 4096];
                let mut count = 0;
                while !request[..count].ends_with(b"\r\n\r\n") {
                    match stream.read(&mut request[count..]) {
                        Ok(more @ 1..) => count += more,
                        _ => break,
                    }
                }
                for piece in pieces {
                    let _ = stream.write_all(&piece);
                }
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Talker { url, scripts }
    }

    fn say(&self, bytes: &[u8], random: &mut Random) {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((1 + random.below(400)).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = left;
        }
        self.scripts.send(pieces).expect("it listens");
    }
}

/// A client of its own for each reply, or a kept connection would take one that is meant for the next.
fn client() -> HttpClient {
    let limit = Some(Duration::from_secs(5));
    let timeouts = Timeouts { first_byte: limit, body: limit, total: limit, ..Timeouts::default() };
    quick().retry(soon(1)).timeouts(timeouts).max_body(1 << 20).build().expect("sound settings")
}

/// A reply with this body, and how many of its bytes have to be there before the body is whole.
fn reply(body: &[u8], random: &mut Random) -> (Vec<u8>, usize) {
    let mut text = b"HTTP/1.1 200 OK\r\nServer: a stranger\r\n".to_vec();
    if random.below(2) == 0 {
        text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        text.extend_from_slice(body);
        let needed = text.len();
        return (text, needed);
    }
    text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at((1 + random.below(300)).min(rest.len()));
        let extension = if random.below(4) == 0 { ";name=\"value\"" } else { "" };
        text.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
        rest = left;
    }
    text.extend_from_slice(b"0\r\n");
    let needed = text.len();
    if random.below(3) == 0 {
        text.extend_from_slice(b"Checksum: none\r\n");
    }
    text.extend_from_slice(b"\r\n");
    (text, needed)
}

#[test]
fn what_is_whole_is_read_as_it_is_and_what_is_cut_is_never_taken_for_it() {
    let talker = Talker::start();
    for_all(|random| {
        let body = random.bytes(2_000);
        let (text, needed) = reply(&body, random);
        talker.say(&text, random);
        let reply = client().get(&talker.url).send().expect("it is whole");
        assert_eq!((reply.bytes(), reply.length_known()), (&body[..], true));

        let cut = random.below(needed);
        talker.say(&text[..cut], random);
        let error = client().get(&talker.url).send().expect_err("it is cut");
        assert_eq!(error.kind(), HttpErrorKind::Broken, "cut at {cut} of {needed}: {error:?}");

        let folder = Folder::new();
        talker.say(&text[..cut], random);
        let outcome = client().get(&talker.url).download(&Download::new(folder.path(), "file"));
        let error = outcome.expect_err("it is cut");
        assert_eq!(error.kind(), HttpErrorKind::Broken, "cut at {cut} of {needed}: {error:?}");
        assert!(!folder.path().join("file").exists(), "cut at {cut} of {needed}");
    });
}

#[test]
fn whatever_comes_the_client_comes_to_an_end() {
    let talker = Talker::start();
    for_all(|random| {
        let body = random.bytes(600);
        let (mut text, _) = reply(&body, random);
        for _ in 0..1 + random.below(6) {
            let at = random.below(text.len().max(1));
            match random.below(4) {
                0 => text.truncate(at),
                1 => text.insert(at.min(text.len()), random.next() as u8),
                2 if at < text.len() => text[at] = b"\r\n :;0fF-\0\xff"[random.below(11)],
                _ => drop(text.drain(at.min(text.len())..(at + random.below(9)).min(text.len()))),
            }
        }
        talker.say(&text, random);
        match client().get(&talker.url).send() {
            Ok(reply) => assert!(reply.bytes().len() <= text.len()),
            Err(error) => {
                use HttpErrorKind::{Broken, Content, Redirect, Status, TooLarge};
                let kind = error.kind();
                assert!(
                    matches!(kind, Broken | Content | Redirect | Status(_) | TooLarge),
                    "{error:?}: {:?}",
                    String::from_utf8_lossy(&text)
                );
            }
        }
    });
}
