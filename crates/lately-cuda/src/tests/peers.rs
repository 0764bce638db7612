//! Groups that add up, by emulation, and how a card waits for its group.

use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use lately_model::training::Group;

use crate::CudaError;
use crate::driver::Driver;
use crate::driver::emulation::Emulation;
use crate::driver::peers::{Patience, wait};
use crate::meeting::{Links, MeetingError, TICKET_BYTES, meet, receive};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

type Peers = <Emulation as Driver>::Peers;

fn join(rank: usize, size: usize, meeting: &str) -> Result<Peers, CudaError> {
    Emulation::default().join(&Group { rank, size, meeting: meeting.into() })
}

/// Each member on a thread of its own, in the order of ranks.
fn members<T: Send>(size: usize, meeting: &str, work: impl Fn(usize, Peers) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let start = |rank| scope.spawn(move || work(rank, join(rank, size, meeting).unwrap()));
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A member's numbers, of sizes so different that their order shows in the sum's bits.
fn part(rank: usize, round: usize, words: usize) -> Vec<f32> {
    (0..words)
        .map(|i| (i + 1) as f32 * 1.37f32.powi((rank * 7 + round) as i32) * [1.0, -1e4][i % 2])
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// What every member must hold: added in the order of ranks.
fn sums(size: usize, round: usize, words: usize) -> Vec<f32> {
    let mut sums = part(0, round, words);
    for rank in 1..size {
        sums.iter_mut().zip(part(rank, round, words)).for_each(|(sum, x)| *sum += x);
    }
    sums
}

#[test]
fn all_members_hold_the_same_sums() {
    const WORDS: usize = 100;
    for size in [1, 2, 3, 8] {
        // One place for all groups, one after another.
        members(size, "sums", |rank, mut peers| {
            let driver = Emulation::default();
            let mut lane = driver.lane(1, 1).unwrap();
            let memory = driver.allocate(WORDS).unwrap();
            for (round, (at, words)) in
                [(0, WORDS), (0, 1), (99, 1), (17, 40), (50, 0), (0, WORDS)].into_iter().enumerate()
            {
                let all = bits(&part(rank, round, WORDS));
                driver.write(&mut lane, &memory, 0, &all).unwrap();
                driver.add_up(&mut lane, &mut peers, &memory, at, words).unwrap();
                let mut got = vec![0; WORDS];
                driver.read(&mut lane, &memory, 0, &mut got).unwrap();
                let whole = bits(&sums(size, round, WORDS));
                assert_eq!(got[at..at + words], whole[at..at + words], "{size} members, round {round}");
                // Nothing else is touched.
                assert_eq!(got[..at], all[..at]);
                assert_eq!(got[at + words..], all[at + words..]);
            }
        });
    }
}

#[test]
fn a_member_that_leaves_ends_the_group() {
    let add_up = |peers: &mut Peers| {
        let driver = Emulation::default();
        let mut lane = driver.lane(1, 1).unwrap();
        let memory = driver.allocate(4).unwrap();
        driver.write(&mut lane, &memory, 0, &[0; 4]).unwrap();
        driver.add_up(&mut lane, peers, &memory, 0, 4)
    };
    let got = members(3, "leaves", |rank, mut peers| {
        add_up(&mut peers).unwrap();
        if rank == 1 {
            return vec![];
        }
        vec![add_up(&mut peers), add_up(&mut peers)]
    });
    let gone = || Err(CudaError::from(MeetingError::Gone { rank: 1 }));
    assert_eq!(got, [vec![gone(), gone()], vec![], vec![gone(), gone()]]);
}

#[test]
fn members_that_add_up_different_numbers_are_found_out() {
    let got = members(2, "different", |rank, mut peers| {
        let driver = Emulation::default();
        let mut lane = driver.lane(1, 1).unwrap();
        let memory = driver.allocate(4).unwrap();
        driver.write(&mut lane, &memory, 0, &[0; 4]).unwrap();
        driver.add_up(&mut lane, &mut peers, &memory, 0, 3 + rank).unwrap_err().to_string()
    });
    assert!(got.iter().any(|words| words.contains("[3, 4] numbers")), "{got:?}");
}

#[test]
fn members_that_do_not_fit_are_refused() {
    let refused = |rank, size| match join(rank, size, "refused") {
        Err(CudaError::Meeting(error)) => error,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(refused(2, 2), MeetingError::Member { rank: 2, size: 2 });
    thread::scope(|scope| {
        // Two come with one number: one of them stays, and is there when the other is refused.
        let (said, results) = channel();
        for said in [said.clone(), said] {
            scope.spawn(move || said.send(join(0, 2, "refused")));
        }
        let first = results.recv_timeout(LONG).unwrap();
        assert_eq!(first.err(), Some(MeetingError::Taken { rank: 0 }.into()));
        assert_eq!(refused(1, 3), MeetingError::Size { ours: 3, theirs: 2 });
        let _second = join(1, 2, "refused").unwrap();
        assert!(results.recv_timeout(LONG).unwrap().is_ok());
    });
}

/// Both ends of a group of two.
fn links() -> (Links, Links) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let meeting = listener.local_addr().unwrap().to_string();
    let group = |rank| Group { rank, size: 2, meeting: meeting.clone() };
    let (first, second) = (group(0), group(1));
    thread::scope(|scope| {
        let first = scope.spawn(move || receive(&listener, &first, &[0; TICKET_BYTES], LONG).unwrap());
        let (_, second) = meet::<MeetingError>(&second, LONG, || unreachable!()).unwrap();
        (first.join().unwrap(), second)
    })
}

#[test]
fn a_wait_ends_with_what_it_waits_for() {
    let (ours, theirs) = links();
    let patience = Patience { busy: LONG, gone: LONG };
    let mut asked = 0;
    let count = || {
        asked += 1;
        Ok(asked > 3)
    };
    wait("test", &ours, patience, count).unwrap();
    assert_eq!(asked, 4);
    // It fails by itself.
    let failure = CudaError::Group { doing: "test", reason: "no".into() };
    assert_eq!(wait("test", &ours, patience, || Err(failure.clone())), Err(failure.clone()));
    // The other one leaves at its regular end, this one is done a little later.
    drop(theirs);
    let start = Instant::now();
    wait("test", &ours, patience, || Ok(start.elapsed() > SHORT)).unwrap();
}

#[test]
fn a_wait_ends_without_a_member_that_is_gone() {
    let (ours, theirs) = links();
    drop(theirs);
    let got = wait("test", &ours, Patience { busy: LONG, gone: SHORT }, || Ok(false));
    assert_eq!(got, Err(MeetingError::Gone { rank: 1 }.into()));
}

#[test]
fn a_wait_ends_without_members_that_do_not_move() {
    let (ours, _theirs) = links();
    let got = wait("test", &ours, Patience { busy: SHORT, gone: LONG }, || Ok(false)).unwrap_err();
    assert!(matches!(&got, CudaError::Group { doing: "test", .. }), "{got}");
    assert!(got.to_string().contains("though their processes run"), "{got}");
}
