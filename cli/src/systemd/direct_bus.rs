// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connection to the bus for questions alone, which the asking thread itself reads. The threads and the event loop that zbus
//! starts otherwise cost more than the questions of a short command.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{self, BufReader, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::Stream as _;
use zbus::address::Address;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::socket::{ReadHalf, Split, WriteHalf};
use zbus::connection::{Builder, Socket};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

/// What is read of the socket at once, if it is there.
const READ_SIZE: usize = 64 << 10;

/// A connection whose questions get their answers only while [`DirectBus::drive`] runs.
pub(super) struct DirectBus {
    bus: Connection,
    received: Mutex<MessageStream>,
    answers: Mutex<Answers>,
}

/// The answers by the numbers of their questions. A call of zbus looks at all answers that come while it waits, so that the
/// time of many calls at once grows with their square.
#[derive(Default)]
struct Answers {
    waiting: HashMap<NonZeroU32, Waker>,
    arrived: HashMap<NonZeroU32, Message>,
    /// Why no more will come.
    end: Option<zbus::Error>,
}

impl DirectBus {
    /// Connects to `address`; none if that is no plain Unix socket. If nothing comes for as long as `timeout`, all questions
    /// fail.
    pub(super) fn connect(address: &Address, timeout: Duration) -> Option<zbus::Result<Self>> {
        let Transport::Unix(unix) = address.transport() else {
            return None;
        };
        let stream = match unix.path() {
            // zbus checks the identity of a bus only where it opens the socket.
            _ if address.guid().is_some() => return None,
            UnixSocket::File(path) => UnixStream::connect(path),
            UnixSocket::Abstract(name) => SocketAddr::from_abstract_name(name.as_bytes())
                .and_then(|name| UnixStream::connect_addr(&name)),
            _ => return None,
        };
        let connect = || {
            let stream = stream?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            let builder = Builder::socket(BlockingSocket(stream)).internal_executor(false);
            let bus = run(builder.build(), || {})?;
            Ok(Self {
                received: Mutex::new(MessageStream::from(&bus)),
                answers: Mutex::default(),
                bus,
            })
        };
        Some(connect())
    }

    /// Asks a question, a method call, and waits for its answer.
    pub(super) async fn ask(&self, question: &Message) -> zbus::Result<Message> {
        let number = question.primary_header().serial_num();
        lock(&self.answers).expect(number)?;
        self.bus.send(question).await?;
        let answer = poll_fn(|context| lock(&self.answers).poll(number, context)).await?;
        match answer.message_type() {
            Type::Error => Err(answer.into()),
            _ => Ok(answer),
        }
    }

    /// Runs what waits for nothing but answers of this connection.
    pub(super) fn drive<T>(&self, asking: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(Waker::noop());
        run(asking, || {
            // One step: the socket's reader may have messages now.
            let _ = pin!(self.bus.executor().tick()).poll(&mut context);
            let mut received = lock(&self.received);
            while let Poll::Ready(message) = Pin::new(&mut *received).poll_next(&mut context) {
                let closed = || io::Error::from(io::ErrorKind::BrokenPipe).into();
                let is_end = !matches!(message, Some(Ok(_)));
                lock(&self.answers).add(message.unwrap_or_else(|| Err(closed())));
                if is_end {
                    break;
                }
            }
        })
    }
}

impl Answers {
    /// Takes a message, which may be an answer.
    fn add(&mut self, message: zbus::Result<Message>) {
        match message {
            Ok(message) => {
                // Signals and questions of others are no answers.
                let Some(number) = message.header().reply_serial() else {
                    return;
                };
                if let Some(waker) = self.waiting.remove(&number) {
                    self.arrived.insert(number, message);
                    waker.wake();
                }
            }
            Err(error) => {
                self.end.get_or_insert(error);
                self.waiting.drain().for_each(|(_, waker)| waker.wake());
            }
        }
    }

    /// Keeps the answer to this question once it comes.
    fn expect(&mut self, number: NonZeroU32) -> zbus::Result<()> {
        self.waiting.insert(number, Waker::noop().clone());
        self.end.clone().map_or(Ok(()), Err)
    }

    fn poll(&mut self, number: NonZeroU32, context: &Context) -> Poll<zbus::Result<Message>> {
        if let Some(answer) = self.arrived.remove(&number) {
            return Poll::Ready(Ok(answer));
        }
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        self.waiting.insert(number, context.waker().clone());
        Poll::Pending
    }
}

/// Polls a future until it is ready, and calls `idle` whenever it has nothing to do.
fn run<T>(future: impl Future<Output = T>, mut idle: impl FnMut()) -> T {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            idle();
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is asked is sent only before the next answer is waited for, and all at once.
type Outgoing = Arc<Mutex<Vec<u8>>>;

/// A socket whose reader blocks instead of saying that it is not ready.
#[derive(Debug)]
struct BlockingSocket(UnixStream);

impl Socket for BlockingSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let outgoing = Outgoing::default();
        let reader = Reader {
            stream: BufReader::with_capacity(READ_SIZE, self.0),
            outgoing: Arc::clone(&outgoing),
        };
        Split::new(reader, Writer(outgoing))
    }
}

#[derive(Debug)]
struct Reader {
    stream: BufReader<UnixStream>,
    outgoing: Outgoing,
}

#[async_trait::async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.stream.buffer().is_empty() {
            // Who has an answer by now may ask the next question, or need no more.
            yield_once().await;
            let outgoing = std::mem::take(&mut *lock(&self.outgoing));
            let mut stream = self.stream.get_ref();
            stream.write_all(&outgoing).map_err(late)?;
        }
        loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(|count| (count, Vec::new())).map_err(late),
            }
        }
    }
}

#[derive(Debug)]
struct Writer(Outgoing);

#[async_trait::async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, bytes: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The error of a socket whose time is over, in the words of zbus.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use futures_util::future::{join, join_all};
    use tempfile::TempDir;
    use zbus::message::Header;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const OK: &str = "OK 0123456789abcdef0123456789abcdef\r\n";

    /// A bus that says `ok` to a client, and lets `talk` say what comes after the handshake.
    fn bus(
        ok: &'static str,
        talk: impl FnOnce(&mut Reader) + Send + 'static,
    ) -> (TempDir, Address, JoinHandle<()>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bus");
        let listener = UnixListener::bind(&path).expect("a socket");
        let bus = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let (mut client, _) = BlockingSocket(stream).split().take();
            let line = read_line(&mut client);
            assert!(line.starts_with("\0AUTH EXTERNAL "), "{line:?}");
            say(&client, ok.as_bytes());
            if ok == OK {
                assert_eq!(read_line(&mut client), "BEGIN\r\n");
            }
            talk(&mut client);
        });
        let address = format!("unix:path={}", path.display());
        (folder, address.parse().expect("an address"), bus)
    }

    fn connect(address: &Address, timeout: Duration) -> zbus::Result<DirectBus> {
        DirectBus::connect(address, timeout).expect("a Unix socket")
    }

    fn say(client: &Reader, bytes: &[u8]) {
        client.stream.get_ref().write_all(bytes).expect("a client");
    }

    fn read_line(client: &mut Reader) -> String {
        let mut line = String::new();
        client.stream.read_line(&mut line).expect("a line");
        line
    }

    fn read(client: &mut Reader) -> Message {
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        let message = run(client.receive_message(1, &mut bytes, &mut fds), || {});
        message.expect("a message")
    }

    fn answer(to: &Header<'_>, text: &str) -> Vec<u8> {
        let answer = Message::method_return(to).expect("an answer");
        answer.build(&text).expect("an answer").data().to_vec()
    }

    fn say_hello(client: &mut Reader) {
        let hello = read(client);
        for byte in answer(&hello.header(), ":1.7") {
            say(client, &[byte]);
        }
    }

    async fn echo(bus: &DirectBus, text: &str) -> zbus::Result<String> {
        let question = Message::method_call("/a", "Echo")?.destination("a.b")?;
        let answer = bus.ask(&question.build(&text)?).await?;
        answer.body().deserialize()
    }

    #[test]
    fn answers_go_to_their_questions_in_any_order() {
        const COUNT: usize = 96;
        let (_folder, address, thread) = bus(OK, |client| {
            say_hello(client);
            // All are asked before an answer is waited for.
            let asked: Vec<_> = (0..COUNT).map(|_| read(client)).collect();
            // Another message comes first, in pieces.
            let signal = Message::signal("/a", "a.b", "C").expect("a signal");
            let signal = signal.build(&()).expect("a signal");
            for byte in signal.data().iter() {
                say(client, &[*byte]);
            }
            let mut bytes = Vec::new();
            for question in asked.iter().rev() {
                let text: String = question.body().deserialize().expect("a text");
                bytes.extend(answer(&question.header(), &text));
            }
            say(client, &bytes);
            let last = read(client);
            say(client, &answer(&last.header(), "the last"));
        });
        let bus = connect(&address, TIMEOUT).expect("a bus");
        let texts: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
        let (answers, last) = bus.drive(async {
            let asking = texts.iter().map(|text| echo(&bus, text));
            (join_all(asking).await, echo(&bus, "last").await)
        });
        let answers: Vec<_> = answers
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("answers");
        assert_eq!(answers, texts);
        assert_eq!(last.expect("an answer"), "the last");
        thread.join().expect("a bus");
    }

    #[test]
    fn error_is_the_answer_and_an_end_is_one_to_all() {
        let (_folder, address, thread) = bus(OK, |client| {
            say_hello(client);
            let asked = [read(client), read(client)];
            let error = Message::error(&asked[0].header(), "org.example.No").expect("an error");
            let error = error.build(&"no").expect("an error");
            say(client, error.data());
        });
        let bus = connect(&address, TIMEOUT).expect("a bus");
        let (one, other) = bus.drive(join(echo(&bus, "one"), echo(&bus, "other")));
        assert!(matches!(one, Err(zbus::Error::MethodError(..))), "{one:?}");
        let is_broken = |answer| matches!(answer, Err(zbus::Error::InputOutput(_)));
        assert!(is_broken(other));
        assert!(is_broken(bus.drive(echo(&bus, "later"))));
        thread.join().expect("a bus");
    }

    #[test]
    fn bus_that_refuses_or_says_nothing_is_an_error() {
        let until_client_leaves = |client: &mut Reader| {
            let _ = client.stream.read_to_end(&mut Vec::new());
        };
        let refused = |ok, timeout| {
            let (_folder, address, thread) = bus(ok, until_client_leaves);
            let error = connect(&address, timeout).map(drop).expect_err("no bus");
            thread.join().expect("a bus");
            error
        };
        let error = refused("REJECTED EXTERNAL\r\n", TIMEOUT);
        assert!(matches!(error, zbus::Error::Handshake(_)), "{error:?}");
        let is_late = |error: &zbus::Error| matches!(error, zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut);
        let error = refused("", Duration::from_millis(1));
        assert!(is_late(&error), "{error:?}");
    }

    #[test]
    fn other_sockets_are_left_to_zbus() {
        for address in [
            "tcp:host=127.0.0.1,port=1",
            "unix:path=/a,guid=0123456789abcdef0123456789abcde0",
        ] {
            let address = address.parse().expect("an address");
            assert!(DirectBus::connect(&address, TIMEOUT).is_none(), "{address}");
        }
    }
}
