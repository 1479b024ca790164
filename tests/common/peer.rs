//! Programs that are nobody's of ours: started, spoken to, frozen and killed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Watchdog};

/// Whether these programs are on the PATH; if not, the test says so and goes on without.
pub fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let missing = programs.iter().find(|name| !is_there(name));
    if let Some(name) = missing {
        println!("skipped: needs {name}");
    }
    missing.is_none()
}

/// Whether Python is there, with a module of this name.
pub fn has_python(module: &str) -> bool {
    if !has(&["python3"]) {
        return false;
    }
    let import = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    let found = import.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: needs Python's {module}");
    }
    found
}

/// A program in Python.
pub fn python(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-u", "-c", program]).args(args);
    command
}

/// The engines that an example can be told to run on here.
pub fn engines() -> Vec<&'static str> {
    crate::common::both(&tamam::Runtime::builder()).into_iter().map(|(name, _)| name).collect()
}

/// Runs a test once for each engine that the examples can have here, with a folder of its own.
pub fn on_each_engine(name: &str, test: impl Fn(&str, &Folder)) {
    for engine in engines() {
        eprintln!("-- {engine}");
        let _watchdog = Watchdog::start();
        test(engine, &Folder::new(&format!("{name}-{engine}")));
    }
}

/// An address of loopback where nobody listens at this moment.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    listener.local_addr().expect("bound")
}

/// A program under way. What it prints is kept, of both kinds; it ends with the test.
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: Arc<Printed>,
    readers: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Printed {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Default)]
struct Text {
    /// Its standard output and its standard error.
    outputs: [Vec<u8>; 2],
    /// How many of its two outputs have ended.
    ended: usize,
}

impl Peer {
    pub fn start(command: &mut Command) -> Peer {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let printed = Arc::new(Printed::default());
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        let keep = |(which, mut output): (usize, Box<dyn Read + Send>)| {
            let printed = printed.clone();
            thread::spawn(move || {
                let mut buf = [0; 16 * 1024];
                loop {
                    let len = output.read(&mut buf).unwrap_or(0);
                    let mut text = printed.text.lock().unwrap_or_else(PoisonError::into_inner);
                    text.outputs[which].extend_from_slice(&buf[..len]);
                    text.ended += usize::from(len == 0);
                    printed.changed.notify_all();
                    if len == 0 {
                        return;
                    }
                }
            })
        };
        let readers = [(0, stdout), (1, stderr)].map(keep).into();
        let stdin = child.stdin.take();
        Peer { child, stdin, printed, readers }
    }

    /// Everything it has printed so far, its errors last.
    pub fn text(&self) -> String {
        let text = self.printed.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text.outputs.concat()).into_owned()
    }

    pub fn has_printed(&self, what: &str) -> bool {
        self.text().contains(what)
    }

    /// Waits until it has printed this, and gives the rest of that line.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> String {
        self.wait_for_nth(what, 1)
    }

    /// As [`wait_for`](Self::wait_for), for the `nth` time.
    #[track_caller]
    pub fn wait_for_nth(&self, what: &str, nth: usize) -> String {
        let until = Instant::now() + *PATIENCE / 2;
        let mut text = self.printed.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let outputs = text.outputs.each_ref().map(|bytes| String::from_utf8_lossy(bytes));
            let mut found = outputs.iter().flat_map(|output| {
                output.match_indices(what).map(|(at, _)| &output[at + what.len()..])
            });
            let rest = found.nth(nth - 1);
            // The line must be whole.
            if let Some((line, _)) = rest.and_then(|rest| rest.split_once('\n')) {
                return line.trim_end().to_owned();
            }
            let left = until.saturating_duration_since(Instant::now());
            if text.ended == 2 || left.is_zero() {
                panic!("no {nth}. {what:?} in what it printed:\n{}", outputs.concat());
            }
            let waited = self.printed.changed.wait_timeout(text, left);
            text = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As [`wait_for`](Self::wait_for), while the runtime turns.
    pub async fn printed(&self, what: &str) {
        let until = Instant::now() + *PATIENCE / 2;
        while !self.has_printed(what) {
            assert!(Instant::now() < until, "no {what:?} in what it printed:\n{}", self.text());
            tamam::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What it reads; it may be gone already.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("it is not closed");
        if let Err(error) = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()) {
            println!("it does not read: {error}");
        }
    }

    /// Whether it has taken everything that was written to it.
    pub fn has_read_all(&self) -> bool {
        self.stdin.as_ref().is_none_or(|stdin| crate::common::unread(stdin) == 0)
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: takes no pointers. The child is not waited for before it is dropped or `end`ed, so
        // the number is still its own.
        let done = unsafe { libc::kill(pid, signal) };
        assert_eq!(done, 0, "a child can be signalled");
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits until it ends by itself: how, and everything it has printed.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + *PATIENCE / 2;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(Instant::now() < until, "it does not end; it printed:\n{}", self.text());
            thread::sleep(Duration::from_millis(2));
        };
        self.readers.drain(..).for_each(|reader| reader.join().expect("it does not panic"));
        (status, self.text())
    }

    /// As [`end`](Self::end), while the runtime turns.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + *PATIENCE / 2;
        while self.child.try_wait().expect("it is our child").is_none() {
            assert!(Instant::now() < until, "it does not end; it printed:\n{}", self.text());
            tamam::time::sleep(Duration::from_millis(2)).await;
        }
        self.end()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("it lives").count()
    }

    /// How long it has computed so far, in ticks of a hundredth of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("it lives");
        let (_, fields) = stat.rsplit_once(") ").expect("its name is in parentheses");
        let fields: Vec<&str> = fields.split(' ').collect();
        [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// Descriptors go back to what they were, and then nothing is computed any more.
    #[track_caller]
    pub fn is_idle_again(&self, descriptors: usize) {
        let until = Instant::now() + *PATIENCE / 2;
        while self.descriptors() > descriptors {
            assert!(Instant::now() < until, "descriptors left: {}", self.descriptors());
            thread::sleep(Duration::from_millis(5));
        }
        // A loop that spins has both of the halves below full.
        let spent = || {
            let before = self.cpu_ticks();
            thread::sleep(Duration::from_millis(300));
            self.cpu_ticks() - before
        };
        assert!((0..10).any(|_| spent() < 10), "it computes with nothing to do");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already. SIGKILL ends a frozen one too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// A directory of a test's own, gone at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tamam-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a place for temporary files");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, as text.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the path is text").to_owned()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), bytes).expect("room");
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
