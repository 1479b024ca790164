//! The doctor under real refusals: seccomp filters, limits of another user, no descriptors. What it
//! says must be true, and where it sends runtimes to, they must work.

mod common;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::filter::install;
use common::{child, example};
use tamam::{Backend, Runtime, SetupError, Support};

const SETUP: i64 = libc::SYS_io_uring_setup;
const ENTER: i64 = libc::SYS_io_uring_enter;
const REGISTER: i64 = libc::SYS_io_uring_register;

/// How a run of an example ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn says(&self, text: &str) {
        assert!(self.stdout.contains(text), "not found: {text}");
    }

    #[track_caller]
    fn is_silent_about(&self, text: &str) {
        assert!(!self.stdout.contains(text), "found: {text}");
    }
}

fn run(mut command: Command) -> Ended {
    let output = command.output().expect("the example can be run");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it prints text"));
    println!("-- {command:?}: {}\n{stdout}{stderr}", output.status);
    assert!(!stderr.contains("panicked"), "it panics at nothing");
    Ended { code: output.status.code(), stdout, stderr }
}

/// An example that is not told by the environment what to use.
fn free(name: &str) -> Command {
    let mut command = example::command(name);
    command.env_remove("TAMAM_BACKEND").env_remove("TAMAM_PRETEND_KERNEL");
    command
}

/// The doctor after `prepare`, which is called in the child before the program starts.
fn doctor(prepare: fn() -> io::Result<()>) -> Ended {
    let mut command = free("doctor");
    before(&mut command, prepare);
    run(command)
}

fn before(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: everything that is passed here makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From now on, and in every program that is started, `calls` fail with `errno`: a seccomp filter.
fn deny(calls: &[i64], errno: i32) -> io::Result<()> {
    const CALLS_MAX: usize = 3;
    let operation = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let answer = |k| operation(libc::BPF_RET | libc::BPF_K, k);
    let allow = answer(libc::SECCOMP_RET_ALLOW);
    let mut program = [allow; CALLS_MAX + 3];
    // The number of the call is what `struct seccomp_data` starts with.
    program[0] = operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    assert!(calls.len() <= CALLS_MAX, "the program has room");
    let len = calls.len() + 3;
    for (at, call) in calls.iter().enumerate() {
        let is_equal = operation(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32);
        // Equal: over the other comparisons and the permission, to the refusal.
        program[at + 1] = libc::sock_filter { jt: (calls.len() - at) as u8, ..is_equal };
    }
    program[len - 1] = answer(libc::SECCOMP_RET_ERRNO | errno as u32);
    install(&mut program[..len])
}

fn set_limit(what: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a valid limit.
    check(unsafe { libc::setrlimit(what, &limit) })
}

/// Root becomes nobody; others stay who they are.
fn become_nobody() -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // SAFETY: an empty list is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::setgid(65534) })?;
    // SAFETY: as above.
    check(unsafe { libc::setuid(65534) })
}

/// An example that an unprivileged user runs after `prepare`, wherever its file is.
fn as_nobody(name: &str, prepare: fn() -> io::Result<()>) -> Option<Command> {
    let program = free(name).get_program().to_owned();
    // By its descriptor: nobody may not enter every folder on the way to the file.
    let file = File::open(&program).expect("the example is there");
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.env_remove("TAMAM_BACKEND").env_remove("TAMAM_PRETEND_KERNEL");
    command.current_dir("/");
    before(&mut command, move || {
        let _open_until_here = &file;
        become_nobody()?;
        prepare()
    });
    // Root of a sandbox may have nobody to become.
    let mut trial = Command::new("/bin/true");
    before(&mut trial, become_nobody);
    match trial.status() {
        Ok(status) if status.success() => Some(command),
        other => {
            println!("skipped: nobody cannot run programs here: {other:?}");
            None
        }
    }
}

/// Whether io_uring can be used where these tests run; if not, a word about it.
fn has_ring() -> bool {
    let usable = Runtime::builder().backend(Backend::Ring).build();
    if let Err(error) = &usable {
        println!("skipped: no ring to be refused: {error}");
    }
    usable.is_ok()
}

/// The echo server serves and verifies, on epoll.
fn echo_works_on_epoll(prepare: fn() -> io::Result<()>) {
    let mut command = free("echo");
    command.arg("--self-test");
    before(&mut command, prepare);
    let ended = run(command);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.says("engine                 epoll\n");
    let verified = ended.stdout.lines().find_map(|line| line.strip_prefix("bytes verified"));
    let verified = verified.and_then(|number| number.trim().parse::<u64>().ok());
    assert!(verified.is_some_and(|bytes| bytes > 0), "traffic is served");
}

/// What it says of a ring that a filter refuses: which calls, and what allows them.
fn names_the_filter(ended: &Ended, calls: &[&str], errno: i32) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    ended.says("A runtime works here, on epoll.\n");
    ended.says("io_uring  not usable: io_uring is denied, most likely by a seccomp filter");
    ended.says(&format!("; {} says: ", calls[0]));
    let denied = |call: &&str| format!("{call} ({})", io::Error::from_raw_os_error(errno));
    let denied: Vec<_> = calls.iter().map(denied).collect();
    ended.says(&format!("denied: {}\n", denied.join(", ")));
    ended.says("epoll     usable\n");
    ended.says("seccomp filter                 on\n");
    let quoted: Vec<_> = calls.iter().map(|call| format!("\"{call}\"")).collect();
    let rule = format!(r#"{{"names": [{}], "action": "SCMP_ACT_ALLOW"}}"#, quoted.join(", "));
    ended.says(&format!("in \"syscalls\": {rule}\n"));
    // In a container that is known, only its own line.
    let lines = [
        ("docker", "  Docker: docker run --security-opt seccomp=io-uring.json\n".to_owned()),
        ("podman", "  Podman: podman run --security-opt seccomp=io-uring.json\n".to_owned()),
        (
            "kubernetes",
            "  Kubernetes: securityContext: {seccompProfile: {type: Localhost, localhostProfile: \
             profiles/io-uring.json}}; "
                .to_owned(),
        ),
        ("systemd", format!("  systemd: SystemCallFilter={}, below ", calls.join(" "))),
    ];
    let container = tamam::doctor().container().map(str::to_owned);
    let is_known = lines.iter().any(|(name, _)| Some(*name) == container.as_deref());
    for (name, line) in lines {
        if !is_known || Some(name) == container.as_deref() {
            ended.says(&line);
        }
    }
    ended.says("costs a system call for each receive, send, accept and connect");
    ended.says("engine  epoll\n");
    ended.says("6.0    multishot receive   emulated");
    ended.says("6.0    single issuer       absent");
}

// ---- nothing in the way ------------------------------------------------------------------------

#[test]
fn plainly() {
    if !has_ring() {
        return;
    }
    let ended = doctor(|| Ok(()));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.says("A runtime works here, on io_uring.\n\nio_uring  usable\nepoll     usable\n");
    ended.says("engine  ring\n");
    ended.says("5.19   multishot accept    native");
    ended.is_silent_about("To change it");
    // Everything is native but what some kernels before 7.0 get wrong.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("there is /proc");
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let may_be_wrong = major.expect("a release starts with a number") < 7;
    let mut emulated = ended.stdout.lines().filter(|line| line.contains("emulated"));
    assert!(
        emulated.all(|line| may_be_wrong && line.contains("multishot receive")),
        "{}",
        ended.stdout
    );
}

/// What it tells by methods is what it prints, and what a runtime tells of itself.
#[test]
fn its_answers_are_those_of_a_runtime() {
    let report = tamam::doctor();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("there is /proc");
    assert_eq!(report.kernel_release(), release.trim());
    assert!(report.epoll_is_usable(), "{report}");
    let epoll = report.epoll().expect("it is usable");
    assert_eq!(epoll.support("buffer ring"), Some(Support::Emulated));
    let ring = Runtime::builder().backend(Backend::Ring).build();
    assert_eq!(report.ring_is_usable(), ring.is_ok(), "{report}");
    assert_eq!(report.advice().is_empty(), ring.is_ok(), "{report}");
    match (ring, report.ring()) {
        (Ok(runtime), Ok(told)) => {
            assert_eq!(told.features(), runtime.capabilities().features());
            assert_eq!(told.support("multishot accept"), Some(Support::Native));
            assert!(report.cause().is_none() && report.denied_calls().next().is_none());
        }
        (Err(_), Err(error)) => println!("skipped: no ring: {error}"),
        (runtime, told) => panic!("{runtime:?}, but {told:?}"),
    }
    if report.backend() == Some(Backend::Epoll) {
        assert!(report.degraded().any(|feature| feature.name == "batched submission"));
    }
}

/// A runtime that had to make do with epoll says why.
#[test]
fn a_runtime_tells_what_was_refused() {
    if std::env::var_os("TAMAM_BACKEND").is_some() {
        return println!("skipped: the environment leaves no choice");
    }
    let runtime = Runtime::builder().pretend_kernel(5, 10).build().expect("there is epoll");
    let told = runtime.capabilities();
    assert_eq!((told.backend(), told.pretended_kernel()), (Backend::Epoll, Some((5, 10))));
    assert_eq!(told.ring_refused(), runtime.ring_refused());
    assert!(matches!(told.ring_refused(), Some(SetupError::OldKernel { .. })));
    let text = told.to_string();
    assert!(text.contains("ring    refused: kernel 5.10 (pretended) is too old"), "{text}");
    assert!(text.starts_with("engine  epoll\nkernel  "), "{text}");
}

#[test]
fn inside_a_runtime() {
    for (_, builder) in common::both(&Runtime::builder()) {
        let runtime = builder.build().expect("it works here");
        runtime.block_on(async {
            let report = tamam::doctor();
            assert!(report.epoll_is_usable(), "{report}");
            tamam::time::sleep(Duration::from_millis(1)).await;
        });
    }
}

#[test]
fn the_environment_asks() {
    let with = |name, value| {
        let mut command = free("doctor");
        command.env(name, value);
        run(command)
    };
    let old = with("TAMAM_PRETEND_KERNEL", "5.10");
    assert_eq!(old.code, Some(1));
    old.says("not usable: kernel 5.10 (pretended) is too old");
    old.says("environment: unset TAMAM_PRETEND_KERNEL\n");
    old.says("5.11   exact waits         absent");
    let epoll = with("TAMAM_BACKEND", "epoll");
    epoll.says("A runtime works here, on epoll.\nTAMAM_BACKEND=epoll asks for it.\n");
    let wrong = with("TAMAM_BACKEND", "rings");
    wrong.says("No runtime works here.\n");
    wrong.says("No runtime works here.\nTAMAM_BACKEND is `rings`");
    wrong.says("environment: TAMAM_BACKEND is `rings`");
    let unknown = with("TAMAM_PRETEND_KERNEL", "six");
    unknown.says("No runtime works here.\nTAMAM_PRETEND_KERNEL is `six`");
    unknown.says("To change it:\n  environment: TAMAM_PRETEND_KERNEL is `six`");
    assert_eq!((wrong.code, unknown.code), (Some(2), Some(2)), "no runtime starts");
    let mut command = free("doctor");
    command.env("TAMAM_PRETEND_KERNEL", "5.10").env("TAMAM_BACKEND", "ring");
    let contrary = run(command);
    assert_eq!(contrary.code, Some(2));
    contrary.says("No runtime works here.\nTAMAM_BACKEND=ring asks for io_uring.\n");
    contrary.says("environment: or unset TAMAM_BACKEND, or set it to auto\n");
    if has_ring() {
        assert_eq!(epoll.code, Some(0), "the ring is usable");
        let middle = with("TAMAM_PRETEND_KERNEL", "6.1");
        assert_eq!(middle.code, Some(0));
        middle.says("used as 6.1 (pretended)\n");
        middle.says("6.6    no sqarray          absent");
        middle.says("6.15   no iowait           absent");
    }
}

// ---- filters -----------------------------------------------------------------------------------

#[test]
fn a_filter_that_says_eperm() {
    if has_ring() {
        let prepare = || deny(&[SETUP, ENTER, REGISTER], libc::EPERM);
        let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
        names_the_filter(&doctor(prepare), &calls, libc::EPERM);
        echo_works_on_epoll(prepare);
    }
}

#[test]
fn a_filter_that_says_enosys() {
    if has_ring() {
        let prepare = || deny(&[SETUP, ENTER, REGISTER], libc::ENOSYS);
        let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
        names_the_filter(&doctor(prepare), &calls, libc::ENOSYS);
        echo_works_on_epoll(prepare);
    }
}

/// A ring can be had, and no use be made of it: found when a runtime starts, not when it works.
#[test]
fn a_filter_that_denies_one_call() {
    if !has_ring() {
        return;
    }
    let setup = doctor(|| deny(&[SETUP], libc::EPERM));
    names_the_filter(&setup, &["io_uring_setup"], libc::EPERM);
    let register = doctor(|| deny(&[REGISTER], libc::EPERM));
    names_the_filter(&register, &["io_uring_register"], libc::EPERM);
    let register = doctor(|| deny(&[REGISTER], libc::ENOSYS));
    names_the_filter(&register, &["io_uring_register"], libc::ENOSYS);
    let enter = doctor(|| deny(&[ENTER], libc::ENOSYS));
    names_the_filter(&enter, &["io_uring_enter"], libc::ENOSYS);
    let prepare = || deny(&[ENTER], libc::EPERM);
    names_the_filter(&doctor(prepare), &["io_uring_enter"], libc::EPERM);
    echo_works_on_epoll(prepare);
}

/// Who insists on the ring gets an error, and nothing else instead.
#[test]
fn a_filter_and_no_choice() {
    if !has_ring() {
        return;
    }
    let mut command = free("echo");
    command.arg("--self-test").env("TAMAM_BACKEND", "ring");
    before(&mut command, || deny(&[SETUP, ENTER, REGISTER], libc::EPERM));
    let ended = run(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("seccomp filter"), "{}", ended.stderr);
    let mut command = free("doctor");
    command.env("TAMAM_BACKEND", "ring");
    before(&mut command, || deny(&[SETUP, ENTER, REGISTER], libc::EPERM));
    let ended = run(command);
    assert_eq!(ended.code, Some(2), "epoll is usable, and not asked for");
    ended.says("No runtime works here.\nTAMAM_BACKEND=ring asks for io_uring.\n");
    ended.says("environment: or unset TAMAM_BACKEND, or set it to auto\n");
}

/// The calls of neither engine.
#[test]
fn a_filter_that_leaves_nothing() {
    let nothing = doctor(|| deny(&[SETUP, libc::SYS_epoll_create1], libc::EPERM));
    assert_eq!(nothing.code, Some(2));
    nothing.says("No runtime works here.\n");
    nothing.says("epoll     not usable: epoll_create1 failed");
    nothing.is_silent_about("what it gives");
    let nothing = doctor(|| deny(&[libc::SYS_eventfd2], libc::EPERM));
    assert_eq!(nothing.code, Some(2));
    nothing.says("not usable: eventfd failed: Operation not permitted");
}

/// Whatever else is denied, it goes on, and tells what it could not do.
#[test]
fn a_filter_in_its_own_way() {
    let no_thread = doctor(|| deny(&[libc::SYS_clone, libc::SYS_clone3], libc::EPERM));
    assert!(matches!(no_thread.code, Some(0 | 1)));
    no_thread.says("epoll     usable\n          started only, not run: no thread could be had");
    let no_socket = doctor(|| deny(&[libc::SYS_socket], libc::EACCES));
    assert!(matches!(no_socket.code, Some(0 | 1)));
    let note =
        "epoll     usable\n          tried with a timer only, since loopback says: socket for IPv4";
    no_socket.says(&format!("{note}: Perm"));
    let no_release = doctor(|| deny(&[libc::SYS_uname], libc::EPERM));
    no_release.says("kernel                         unknown\n");
    let no_limits = doctor(|| deny(&[libc::SYS_prlimit64, libc::SYS_readlinkat], libc::EPERM));
    assert!(matches!(no_limits.code, Some(0 | 1)));
    no_limits.says("descriptors (RLIMIT_NOFILE)    not known\n");
    // prctl(2) installs the filter, and is not there any more.
    let blind = doctor(|| deny(&[libc::SYS_prctl, SETUP], libc::EPERM));
    assert_eq!(blind.code, Some(1));
    blind.says("seccomp filter                 not known\n");
    blind.says("seccomp=io-uring.json");
}

/// A wait that the kernel measures in milliseconds is not told as exact.
#[test]
fn a_filter_that_makes_waits_coarse() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut command = free("doctor");
        command.env("TAMAM_BACKEND", "epoll");
        before(&mut command, move || deny(&[libc::SYS_epoll_pwait2], errno));
        let coarse = run(command);
        coarse.says("epoll     usable\n");
        coarse.says("5.11   exact waits         absent ");
        coarse.says("a timer is up to a millisecond late");
    }
}

// ---- limits ------------------------------------------------------------------------------------

#[test]
fn no_locked_memory() {
    let prepare = || set_limit(libc::RLIMIT_MEMLOCK, 0, 0);
    let Some(command) = as_nobody("doctor", prepare) else { return };
    let ended = run(command);
    ended.says("locked bytes (RLIMIT_MEMLOCK)  0 (may be raised to 0)\n");
    ended.says("epoll     usable\n");
    match ended.code {
        Some(0) => {
            println!("this kernel charges a ring's memory elsewhere");
            ended.says("io_uring  usable\n");
            ended.is_silent_about("MEMLOCK=");
        }
        code => {
            assert_eq!(code, Some(1));
            if !has_ring() {
                return;
            }
            ended.says("A runtime works here, on epoll.\n");
            ended.says("RLIMIT_MEMLOCK is 0 bytes");
            ended.says("  shell: ulimit -l unlimited");
            ended.says("completion_entries(128)");
            let container = tamam::doctor().container().map(str::to_owned);
            if container.is_none() {
                ended.says("  systemd: LimitMEMLOCK=infinity");
                ended.says("  Docker: docker run --ulimit memlock=-1\n");
            }
        }
    }
    let mut command = as_nobody("echo", prepare).expect("as before");
    let ended = run({
        command.arg("--self-test");
        command
    });
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

/// No thread to try anything on.
#[test]
fn no_processes() {
    let prepare = || set_limit(libc::RLIMIT_NPROC, 0, 0);
    let Some(command) = as_nobody("doctor", prepare) else { return };
    let ended = run(command);
    assert!(matches!(ended.code, Some(0 | 1)));
    ended.says("epoll     usable\n          started only, not run: no thread could be had");
}

/// One descriptor is left, and a runtime needs two.
#[test]
fn one_descriptor() {
    let ended = doctor(|| set_limit(libc::RLIMIT_NOFILE, 4, 3000));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), ""));
    ended.says("No runtime works here.\n");
    // On a kernel without a ring that is the ring's reason.
    ended.says("io_uring  not usable: ");
    ended.says("epoll     not usable: no file descriptor left");
    ended.says("descriptors (RLIMIT_NOFILE)    4 (may be raised to 3000)\n");
    ended.says("  shell: ulimit -n 3000\n");
    if tamam::doctor().container().is_none() {
        ended.says("  systemd: LimitNOFILE=3000\n");
        ended.says("  Docker: docker run --ulimit nofile=3000:3000\n");
    }
}

/// Two are left: enough for a runtime, and none for a socket.
#[test]
fn two_descriptors() {
    let ended = doctor(|| set_limit(libc::RLIMIT_NOFILE, 5, 5));
    assert!(matches!(ended.code, Some(0 | 1)));
    let note =
        "epoll     usable\n          tried with a timer only, since loopback says: socket for IPv4";
    ended.says(&format!("{note}: Too many"));
}

/// Not one, when it is called: /proc cannot be read either.
#[test]
fn no_descriptors_at_all() {
    const NAME: &str = "no_descriptors_at_all";
    if child::part(NAME).is_none() {
        child::play(NAME, "exhausted", &[]);
        return;
    }
    set_limit(libc::RLIMIT_NOFILE, 64, 64).expect("anyone may lower their limits");
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let report = tamam::doctor();
    assert!(!report.ring_is_usable() && !report.epoll_is_usable(), "{report}");
    assert_eq!(report.backend(), None);
    assert_eq!(report.degraded().count(), 0);
    let refused = std::env::var_os("TAMAM_PRETEND_KERNEL").is_some();
    if !refused {
        assert_eq!(report.cause(), Some(&SetupError::Descriptors { errno: libc::EMFILE }));
        assert!(report.advice().iter().any(|line| line == "shell: ulimit -n 65536"), "{report}");
    }
    assert_ne!(report.kernel_release(), "unknown");
    assert_eq!(report.descriptor_limit().and_then(|limit| limit.soft), Some(64));
    assert_eq!(report.io_uring_disabled(), None, "it could not be read");
    drop(files);
    assert!(tamam::doctor().epoll_is_usable(), "as soon as there are some");
}
