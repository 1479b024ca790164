//! Signals (SEMANTICS SG1 to SG6). Each test plays its part in a process of its own, which sends the
//! signals to itself and to nobody else.

mod common;
#[path = "common/each.rs"]
mod each;

use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Watchdog, child, everywhere, poll_once, start};
use tamam::signal::{SignalKind, ctrl_c, shutdown, signal, terminate};
use tamam::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// Plays `play` in a process of its own.
fn apart(name: &str, play: impl FnOnce()) {
    match child::part(name) {
        Some(_) => play(),
        None => drop(child::play(name, "alone", &[])),
    }
}

/// Sends a signal to this process, one of those that [`apart`] started.
fn send(kind: SignalKind) {
    // SAFETY: takes no pointers.
    let sent = unsafe { libc::kill(libc::getpid(), kind.as_raw()) };
    assert_eq!(sent, 0, "a process may signal itself");
}

// ---- SG1 -----------------------------------------------------------------------------------

#[test]
fn sg1_everybody_gets_it() {
    apart("sg1_everybody_gets_it", || {
        everywhere(async || {
            // In tasks of this runtime, and in a runtime of another thread, which sleeps.
            let (ready, is_ready) = mpsc::channel();
            let other = thread::spawn(move || {
                tamam::run(async move {
                    let stop = start(ctrl_c()).await;
                    ready.send(()).expect("the test waits");
                    stop.await
                })
            });
            let tasks: Vec<_> = (0..3).map(|_| tamam::spawn(ctrl_c())).collect();
            let other_kind = start(terminate()).await;
            let own = start(ctrl_c()).await;
            is_ready.recv().expect("the thread waits");
            send(SignalKind::INTERRUPT);
            own.await.expect("no error");
            for task in tasks {
                task.await.expect("no panic").expect("no error");
            }
            common::join(other).await.expect("no error");
            let mut other_kind = other_kind;
            assert!(poll_once(&mut other_kind).await.is_pending(), "another signal");
            send(SignalKind::TERMINATE);
            other_kind.await.expect("no error");
        });
    });
}

/// While the runtime sleeps in the kernel, from another thread.
#[test]
fn sg1_a_runtime_that_sleeps_is_woken() {
    apart("sg1_a_runtime_that_sleeps_is_woken", || {
        everywhere(async || {
            for _ in 0..5 {
                let stop = terminate();
                let sender = thread::spawn(|| {
                    thread::sleep(5 * MS);
                    send(SignalKind::TERMINATE);
                });
                stop.await.expect("no error");
                common::join(sender).await;
            }
        });
    });
}

// ---- SG2 -----------------------------------------------------------------------------------

#[test]
fn sg2_none_is_missed() {
    apart("sg2_none_is_missed", || {
        everywhere(async || {
            // Between the call and the first poll.
            let mut stop = ctrl_c();
            send(SignalKind::INTERRUPT);
            (&mut stop).await.expect("no error");
            // The same future again waits for another one.
            assert!(poll_once(&mut stop).await.is_pending());
            send(SignalKind::INTERRUPT);
            stop.await.expect("no error");
            // One by one.
            let mut signals = signal(SignalKind::USER1).expect("may be handled");
            for _ in 0..500 {
                send(SignalKind::USER1);
                signals.recv().await;
            }
            // Several before somebody looks are one.
            for _ in 0..5 {
                send(SignalKind::USER1);
            }
            signals.recv().await;
            // The last of them may have been delivered only now: the kernel picks a thread.
            while timeout(20 * MS, signals.recv()).await.is_ok() {}
            // While a dropped `recv` is the last that looked.
            drop(start(Box::pin(signals.recv())).await);
            send(SignalKind::USER1);
            signals.recv().await;
        });
    });
}

#[test]
fn sg2_those_before_are_not_seen() {
    apart("sg2_those_before_are_not_seen", || {
        everywhere(async || {
            let first = terminate();
            send(SignalKind::TERMINATE);
            first.await.expect("no error");
            let mut second = terminate();
            assert!(timeout(5 * MS, &mut second).await.is_err(), "it was before");
        });
    });
}

// ---- SG3 -----------------------------------------------------------------------------------

#[test]
fn sg3_dropped_nobody_is_woken_and_the_process_lives() {
    apart("sg3_dropped_nobody_is_woken_and_the_process_lives", || {
        let _watchdog = Watchdog::start();
        each::mixed(|runtime| {
            let first = runtime();
            first.block_on(async {
                tamam::spawn(ctrl_c());
                tamam::spawn(terminate());
                let stop = start(ctrl_c()).await;
                std::mem::forget(start(ctrl_c()).await);
                drop(stop);
                tamam::yield_now().await;
            });
            drop(first);
            send(SignalKind::INTERRUPT);
            send(SignalKind::TERMINATE);
            runtime().block_on(async {
                sleep(5 * MS).await;
                let next = start(ctrl_c()).await;
                send(SignalKind::INTERRUPT);
                next.await.expect("no error");
            });
        });
    });
}

/// What nobody asked for does what it did.
#[test]
fn sg3_other_signals_end_the_process() {
    const NAME: &str = "sg3_other_signals_end_the_process";
    if child::part(NAME).is_some() {
        return tamam::run(async {
            let _stop = ctrl_c();
            send(SignalKind::TERMINATE);
            sleep(Duration::MAX).await;
        });
    }
    let output = child::command(NAME, "ends", &[]).output().expect("the test's own binary");
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{}", output.status);
}

// ---- SG4 -----------------------------------------------------------------------------------

#[test]
fn sg4_children_are_as_without_us() {
    apart("sg4_children_are_as_without_us", || {
        let _watchdog = Watchdog::start();
        let mut stop = Box::pin(terminate());
        // A forked copy has the handler, but not the thread: the signal does what it did before.
        // SAFETY: the child calls nothing but what is safe after fork(2).
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork works");
        if pid == 0 {
            // SAFETY: ends this copy, in one way or the other.
            unsafe {
                libc::kill(libc::getpid(), libc::SIGTERM);
                libc::_exit(7);
            }
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFSIGNALED(status), "the copy ended with {status:#x}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
        // A program that is started has no handler, and no signal blocked.
        let status = Command::new("sh").args(["-c", "kill -TERM $$"]).status().expect("a shell");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        // None of that was ours.
        tamam::run(async {
            assert!(timeout(5 * MS, &mut stop).await.is_err());
            send(SignalKind::TERMINATE);
            stop.await.expect("no error");
        });
    });
}

/// A forked copy that asks for signals itself has them, and its parent has not.
#[test]
fn sg4_a_forked_copy_may_listen_too() {
    apart("sg4_a_forked_copy_may_listen_too", || {
        let _watchdog = Watchdog::start();
        let mut of_parent = signal(SignalKind::WINDOW).expect("may be handled");
        tamam::run(async {
            send(SignalKind::WINDOW);
            of_parent.recv().await;
        });
        // SAFETY: the other threads of this process sleep, so the copy finds no lock taken; it leaves
        // by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let listens = || {
                // Nobody listens yet: the default action, which is none.
                send(SignalKind::WINDOW);
                tamam::run(async {
                    let mut own = signal(SignalKind::WINDOW).expect("may be handled");
                    drop(start(Box::pin(own.recv())).await);
                    for _ in 0..3 {
                        send(SignalKind::WINDOW);
                        own.recv().await;
                    }
                });
            };
            let failed = std::panic::catch_unwind(listens).is_err();
            // SAFETY: ends the copy.
            unsafe { libc::_exit(i32::from(failed)) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "the copy ended with {status:#x}");
        tamam::run(async {
            assert!(timeout(5 * MS, of_parent.recv()).await.is_err(), "it was the copy's");
            send(SignalKind::WINDOW);
            of_parent.recv().await;
        });
    });
}

// ---- SG5 -----------------------------------------------------------------------------------

#[test]
fn sg5_what_cannot_be_handled_is_an_error() {
    apart("sg5_what_cannot_be_handled_is_an_error", || {
        for number in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 0, -1, 32, 65, i32::MAX] {
            let error = signal(SignalKind::from_raw(number)).expect_err("no handler");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&number.to_string()), "{error}");
        }
        everywhere(async || {
            let kind = SignalKind::from_raw(libc::SIGRTMAX());
            let mut realtime = signal(kind).expect("may be handled");
            assert_eq!(realtime.kind(), kind);
            send(kind);
            realtime.recv().await;
        });
    });
}

// ---- SG6 -----------------------------------------------------------------------------------

/// Whoever started this process had blocked the signal, as some launchers do, and a process inherits
/// that on all its threads.
#[test]
fn sg6_a_mask_that_was_inherited_hides_no_signal() {
    const NAME: &str = "sg6_a_mask_that_was_inherited_hides_no_signal";
    if child::part(NAME).is_some() {
        let _watchdog = Watchdog::start();
        return tamam::run(async {
            send(SignalKind::TERMINATE); // it is pending when the handler comes
            let mut first = signal(SignalKind::TERMINATE).expect("may be handled");
            first.recv().await;
            let mut second = signal(SignalKind::USER1).expect("may be handled");
            send(SignalKind::USER1);
            second.recv().await;
        });
    }
    let mut command = child::command(NAME, "blocked", &[]);
    let block = || {
        // SAFETY: sigset_t consists of integers, for which all zeroes are valid.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        for signal in [libc::SIGTERM, libc::SIGUSR1] {
            // SAFETY: `set` lives through the call.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        // SAFETY: `set` is initialised and lives through the call.
        match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    let output = unsafe { command.pre_exec(block) }.output().expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// ---- SG7 -----------------------------------------------------------------------------------

#[test]
fn sg7_shutdown_tells_which_came() {
    apart("sg7_shutdown_tells_which_came", || {
        everywhere(async || {
            for kind in [SignalKind::INTERRUPT, SignalKind::TERMINATE] {
                let mut stop = shutdown();
                assert!(poll_once(&mut stop).await.is_pending());
                send(kind);
                assert_eq!((&mut stop).await.expect("no error"), kind);
                assert!(poll_once(&mut stop).await.is_pending(), "it waits for another one");
                drop(stop);

                let stop = shutdown(); // between the call and the first poll
                send(kind);
                assert_eq!(stop.await.expect("no error"), kind);
            }
            let mut stop = shutdown();
            send(SignalKind::TERMINATE);
            send(SignalKind::INTERRUPT);
            // The kernel says when a thread takes each of them.
            let came = [(&mut stop).await, (&mut stop).await].map(|kind| kind.expect("no error"));
            assert!(came.contains(&SignalKind::INTERRUPT) && came.contains(&SignalKind::TERMINATE));
            assert!(poll_once(&mut stop).await.is_pending());
        });
    });
}
