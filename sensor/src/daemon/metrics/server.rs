//! The metrics over HTTP/1.1 (RFC 9112): a thread of its own answers `GET /metrics`, and nothing else.
//!
//! Whoever connects gets one answer and [`CLIENT_TIMEOUT`] for all of it, and at most [`CLIENTS_MAX`] are served at
//! once; the rest wait in the kernel's queue. So a client that is slow, says too much or never reads holds up other
//! clients for that long, and the run not at all.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::super::control::{self, ControlError};
use super::super::privileges::User;
use crate::config::MetricsAddress;

/// Why metrics can't be told.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The Unix socket can't be had.
    #[error(transparent)]
    Socket(#[from] ControlError),
    /// The port can't be had.
    #[error("{address}: {cause}")]
    Port {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// Where clients come in: opened with the rights of root.
#[derive(Debug)]
pub(in crate::daemon) enum Door {
    Unix(UnixListener),
    Loopback(TcpListener),
}

impl Door {
    /// Opens what is configured. A Unix socket is for `user`, whom the run becomes, and for root.
    pub(in crate::daemon) fn open(address: &MetricsAddress, user: Option<&User>) -> Result<Option<Self>, MetricsError> {
        match address {
            MetricsAddress::Off => Ok(None),
            MetricsAddress::Unix(path) => Ok(Some(Self::Unix(Self::open_unix(path, user)?))),
            MetricsAddress::Loopback(address) => {
                let open = || {
                    let listener = TcpListener::bind(address)?;
                    listener.set_nonblocking(true)?;
                    Ok(Self::Loopback(listener))
                };
                open().map(Some).map_err(|cause| MetricsError::Port { address: *address, cause })
            }
        }
    }

    fn open_unix(path: &Path, user: Option<&User>) -> Result<UnixListener, ControlError> {
        let listener = control::listen(path)?;
        if let Some((uid, gid)) = user.map(User::ids) {
            chown(path, Some(uid), Some(gid)).map_err(|cause| ControlError::Io { path: path.to_owned(), cause })?;
        }
        Ok(listener)
    }
}

/// Makes the text of an answer.
pub(in crate::daemon) type Answer = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers clients until it is dropped.
pub(in crate::daemon) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to answer those who come through `door`.
    pub(in crate::daemon) fn start(door: Door, answer: Answer) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = Listener::new(door, &runtime)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.spawn(listen(listener, answer));
            // It ends when the sender is dropped, and with it the tasks of all clients.
            runtime.block_on(stopped).ok();
        };
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(serve)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

enum Listener {
    Unix(tokio::net::UnixListener),
    Loopback(tokio::net::TcpListener),
}

/// Both kinds of connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    fn new(door: Door, runtime: &Runtime) -> io::Result<Self> {
        let _in_runtime = runtime.enter();
        match door {
            Door::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Self::Unix),
            Door::Loopback(listener) => tokio::net::TcpListener::from_std(listener).map(Self::Loopback),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Loopback(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn listen(listener: Listener, answer: Answer) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    serve(stream, &answer).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a client of the metrics could not be let in");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: Box<dyn Stream>, answer: &Answer) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, answer);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_TIMEOUT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false)
        // Who has said everything may close that side and still wants an answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CLIENT_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client of the metrics went away"),
        Err(_) => tracing::debug!("a client of the metrics took too long"),
    }
}

fn respond(request: &Request<Incoming>, answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != PATH {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("metrics are at /metrics\n");
    } else if ![Method::GET, Method::HEAD].contains(request.method()) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
        *response.body_mut() = Full::from(answer());
    }
    response
}

const PATH: &str = "/metrics";

/// Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a client may take to ask and to read its answer, together.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many clients are served at once.
const CLIENTS_MAX: usize = 8;

/// How large a request may be.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How long to wait when the system lets nobody in, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
