//! As much of an HTTP server as the servers of the tests stand on: a thread serves one connection, and an answer can be cut
//! short, or not come at all.

mod guard;
mod message;

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use guard::{Guard, Passage};
pub use message::{Answer, Reply, Request};

/// A running server. Dropping it closes every connection and ends its threads, but those in the midst of an answer.
pub struct HttpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    name: &'static str,
    answer: Box<dyn Fn(&Request) -> Answer + Send + Sync>,
    connections: Mutex<BTreeMap<u64, TcpStream>>,
    /// Rung when a connection has come or gone.
    changed: Condvar,
    stopping: AtomicBool,
}

impl HttpServer {
    /// Answers what comes to `listener`, as `name`, until it is dropped.
    ///
    /// # Errors
    /// What the operating system says if there is no thread to be had.
    pub fn start(
        name: &'static str,
        listener: TcpListener,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> io::Result<HttpServer> {
        let address = listener.local_addr()?;
        let answer = Box::new(answer);
        let shared = Arc::new(Shared {
            name,
            answer,
            connections: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        let acceptor = Builder::new().name(name.to_owned()).spawn(move || accept(&listener, &inner))?;
        Ok(HttpServer { address, shared, acceptor: Some(acceptor) })
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// Waits until every connection that was made before has ended. What a process sent that has been killed is done
    /// by then, or will never be: without this, a slow machine does it at any time later.
    ///
    /// # Errors
    /// What the operating system says if no connection can be made.
    pub fn drain(&self) -> io::Result<()> {
        // The system hands connections out in the order in which they were made.
        let last = TcpStream::connect(self.address)?;
        let address = last.local_addr()?;
        let earlier = |connections: &BTreeMap<u64, TcpStream>| {
            let is_last = |stream: &TcpStream| stream.peer_addr().is_ok_and(|peer| peer == address);
            let number = connections.iter().find(|(_, stream)| is_last(stream)).map(|(number, _)| *number);
            number.is_none_or(|number| connections.range(..number).next().is_some())
        };
        let mut connections = lock(&self.shared.connections);
        while earlier(&connections) {
            connections = self.shared.changed.wait(connections).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in lock(&self.shared.connections).values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0u64..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        lock(&shared.connections).insert(number, handle);
        shared.changed.notify_all();
        let inner = Arc::clone(shared);
        let serve = move || {
            // A connection that breaks concerns nobody but its client.
            let _ = serve(stream, &inner);
            lock(&inner.connections).remove(&number);
            inner.changed.notify_all();
        };
        if Builder::new().stack_size(256 << 10).spawn(serve).is_err() {
            lock(&shared.connections).remove(&number);
            shared.changed.notify_all();
        }
    }
}

/// Serves one connection to its end.
fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = Request::read(&mut reader)? {
        let reply = match (shared.answer)(&request) {
            Answer::Reply(reply) => reply,
            Answer::Cut => return writer.shutdown(Shutdown::Both),
            // What is closed without lingering is reset.
            Answer::Reset => return Ok(rustix::net::sockopt::set_socket_linger(&writer, Some(Duration::ZERO))?),
        };
        reply.write(&mut writer, shared.name)?;
        let closes = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if closes || reply.cut_at.is_some() {
            return writer.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// A thread that panicked left nothing half done in these servers: every lock is held for one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
