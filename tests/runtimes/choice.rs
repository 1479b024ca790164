//! H25: which engine a runtime takes.

use std::io::ErrorKind;

use tamam::{Backend, Runtime, SetupError};

use crate::common::{build, child, has_feature, ring_only};
use crate::{busy, panics, play_with, setup_error, works};

/// What becomes of a runtime.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It has this engine, and asked for no other.
    Takes(Backend),
    /// It has epoll, since the kernel is too old for the ring.
    FallsBack,
    /// It does not start, for the same reason.
    TooOld,
    /// It does not start, since a variable is wrong: a word of the complaint.
    Invalid(&'static str),
}

/// The variables for engine and kernel, the builder's own choices, and what becomes of it.
type Choice = ([Option<&'static str>; 2], Backend, Option<(u32, u32)>, Outcome);

const CHOICES: [Choice; 30] = {
    use Backend::{Auto, Epoll, Ring};
    use Outcome::{FallsBack, Invalid, Takes, TooOld};
    [
        ([None, None], Auto, None, Takes(Ring)),
        ([Some(""), None], Auto, None, Takes(Ring)),
        ([Some("auto"), None], Auto, None, Takes(Ring)),
        ([Some("ring"), None], Auto, None, Takes(Ring)),
        ([Some("epoll"), None], Auto, None, Takes(Epoll)),
        // The program's choice stands, and nobody looks at the variable.
        ([Some("ring"), None], Epoll, None, Takes(Epoll)),
        ([Some("epoll"), None], Ring, None, Takes(Ring)),
        ([Some("nonsense"), None], Epoll, None, Takes(Epoll)),
        ([Some("nonsense"), None], Ring, None, Takes(Ring)),
        ([Some("nonsense"), None], Auto, None, Invalid("TAMAM_BACKEND is `nonsense`")),
        ([Some("Ring"), None], Auto, None, Invalid("ring, epoll or auto")),
        // Older kernels.
        ([None, Some("6.1")], Auto, None, Takes(Ring)),
        ([None, Some("6.12")], Auto, None, Takes(Ring)),
        ([None, Some("6.12.57+deb13-amd64")], Ring, None, Takes(Ring)),
        ([None, Some("6.18")], Auto, None, Takes(Ring)),
        ([None, Some("6.0")], Auto, None, FallsBack),
        ([None, Some("5.10")], Auto, None, FallsBack),
        ([Some("auto"), Some("5.10")], Auto, None, FallsBack),
        ([Some("ring"), Some("5.10")], Auto, None, TooOld),
        ([None, Some("5.10")], Ring, None, TooOld),
        ([None, Some("5.10")], Epoll, None, Takes(Epoll)),
        ([Some("epoll"), Some("5.10")], Auto, None, Takes(Epoll)),
        ([None, None], Auto, Some((5, 10)), FallsBack),
        ([None, Some("6.12")], Auto, Some((5, 10)), FallsBack),
        ([None, Some("5.10")], Auto, Some((6, 1)), Takes(Ring)),
        ([None, Some("nonsense")], Auto, Some((6, 12)), Takes(Ring)),
        ([None, Some("nonsense")], Auto, None, Invalid("TAMAM_PRETEND_KERNEL is `nonsense`")),
        ([None, Some("6")], Epoll, None, Invalid("a version such as 6.12")),
        ([None, Some("6,1")], Epoll, None, Invalid("a version such as 6.12")),
        ([None, Some("")], Auto, None, Takes(Ring)),
    ]
};

/// Each choice in a process of its own, which is where its variables are.
#[test]
fn h25_which_engine_a_runtime_has() {
    const NAME: &str = "choice::h25_which_engine_a_runtime_has";
    if let Some(part) = child::part(NAME) {
        return chosen(CHOICES[part.parse::<usize>().expect("a number")]);
    }
    let has_ring = ring_only(Runtime::builder().pretend_kernel(6, 1)).is_some();
    for (number, choice) in CHOICES.into_iter().enumerate() {
        let ([backend, kernel], _, _, outcome) = choice;
        if has_ring || !matches!(outcome, Outcome::Takes(Backend::Ring)) {
            println!("-- {choice:?}");
            play_with(NAME, &number.to_string(), &[], backend, kernel);
        }
    }
}

fn chosen((_, backend, kernel, outcome): Choice) {
    let mut builder = Runtime::builder().backend(backend);
    if let Some((major, minor)) = kernel {
        builder = builder.pretend_kernel(major, minor);
    }
    let built = builder.build();
    let is_too_old = |error: &SetupError| {
        let SetupError::OldKernel { release, .. } = error else { panic!("{error}") };
        assert!(release.contains("pretended"), "{release}");
        assert!(error.to_string().contains("too old"), "{error}");
    };
    match (outcome, built) {
        (Outcome::Takes(engine), Ok(runtime)) => {
            assert_eq!((runtime.backend(), runtime.ring_refused()), (engine, None));
            runtime.block_on(busy());
        }
        (Outcome::FallsBack, Ok(runtime)) => {
            assert_eq!(runtime.backend(), Backend::Epoll);
            is_too_old(runtime.ring_refused().expect("it was tried"));
            runtime.block_on(busy());
        }
        (Outcome::TooOld, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            is_too_old(setup_error(&error));
        }
        (Outcome::Invalid(word), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
            let text = panics(|| tamam::run(async {}));
            assert!(text.contains(word), "{text}");
        }
        (outcome, built) => panic!("not {outcome:?} but {:?}", built.map(|it| it.backend())),
    }
}

/// What came after a kernel is not used when that kernel is pretended.
#[test]
fn h25_a_pretended_kernel_has_what_it_had() {
    let newest = ring_only(Runtime::builder().pretend_kernel(99, 0));
    let Some(newest) = newest else { return };
    let here = build(newest.clone());
    for (kernel, sqarray, iowait, multishot) in [
        ((6, 1), false, false, false),
        ((6, 5), false, false, false),
        ((6, 6), true, false, false),
        ((6, 12), true, false, false),
        ((6, 15), true, true, false),
        ((6, 18), true, true, false),
        ((7, 0), true, true, true),
    ] {
        let runtime = build(newest.clone().pretend_kernel(kernel.0, kernel.1));
        for (feature, had) in
            [("no sqarray", sqarray), ("no iowait", iowait), ("multishot receive", multishot)]
        {
            assert_eq!(
                has_feature(&runtime, feature),
                had && has_feature(&here, feature),
                "{kernel:?}, {feature}"
            );
        }
        runtime.block_on(works());
    }
}
