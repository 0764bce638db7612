//! How NCCL is loaded and called: with a stand-in that checks what it is given, and with the real one, where it is.

#![allow(unsafe_code)] // a call with memory's address

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use lately_model::training::Group;
use tempfile::TempDir;

use crate::CudaError;
use crate::driver::Driver;
use crate::driver::card::Card;
use crate::driver::emulation::compiler;
use crate::driver::nccl::{Communicator, Nccl};
use crate::meeting::TICKET_BYTES;

/// A library with NCCL's functions over this machine's memory, for one member. Every call takes three looks to settle.
const STAND_IN: &str = r#"
#include <cstddef>
#include <cstring>
struct Id { char bytes[128]; };
struct Config { size_t size; unsigned magic, version; int blocking; };
struct Communicator { int looks; int members; };
static const char *last = "";
static int aborted = 0;
extern "C" {
int ncclGetVersion(int *version) { *version = VERSION; return 0; }
int ncclGetUniqueId(Id *id) { for (int i = 0; i < 128; i++) id->bytes[i] = (char)(i * 3); return 0; }
int ncclCommInitRankConfig(Communicator **made, int members, Id id, int rank, Config *config) {
    for (int i = 0; i < 128; i++) if (id.bytes[i] != (char)(i * 3)) { last = "another id"; return 4; }
    if (config->size != sizeof(Config) || config->magic != 0xcafebeef || config->version != 21400 || config->blocking != 0)
        { last = "another configuration"; return 4; }
    if (rank != members - 1) { last = "another rank"; return 5; }
    *made = new Communicator{3, members};
    return 7;
}
int ncclCommGetAsyncError(Communicator *c, int *state) {
    *state = c->members == 3 ? 6 : c->looks-- > 0 ? 7 : 0;
    return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, Communicator *c, void *stream) {
    if (type != 7 || operation != 0 || from != to || stream != (void *)8) { last = "another sum"; return 4; }
    for (size_t i = 0; i < count; i++) ((float *)to)[i] *= c->members;
    c->looks = 3;
    return 7;
}
int ncclCommAbort(Communicator *c) { delete c; aborted++; return 2; }
const char *ncclGetErrorString(int code) { return code == 4 ? "invalid argument" : code == 6 ? "remote error" : "other"; }
#ifdef WHOLE
const char *ncclGetLastError(void *) { return last; }
#endif
int count_of_aborted() { return aborted; }
}
"#;

/// Builds the stand-in; none where there is no compiler.
fn built(flags: &[&str]) -> Option<(TempDir, PathBuf)> {
    let folder = TempDir::new().unwrap();
    let (source, library) = (folder.path().join("nccl.cpp"), folder.path().join("libnccl.so"));
    std::fs::write(&source, STAND_IN).unwrap();
    let mut command = Command::new(compiler()?);
    command.args(["-std=c++17", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(flags);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((folder, library))
}

fn open(library: &std::path::Path) -> Result<Nccl, CudaError> {
    Nccl::open(&["libnccl-of-nobody.so", library.to_str().unwrap()])
}

/// Looks until it is settled: how many it took.
fn looks(communicator: &Communicator) -> usize {
    (1..100).find(|_| communicator.settled().unwrap()).unwrap()
}

#[test]
fn nothing_blocks_and_the_end_is_an_abort() {
    let Some((_folder, library)) = built(&["-DVERSION=22703", "-DWHOLE"]) else { return };
    // SAFETY: the library is the one built above.
    let same = unsafe { libloading::Library::new(&library) }.unwrap();
    // SAFETY: declared so above.
    let aborted = unsafe { same.get::<unsafe extern "C" fn() -> i32>(b"count_of_aborted") }.unwrap();
    // SAFETY: as above.
    let aborted = || unsafe { aborted() };
    let nccl: &'static Nccl = Box::leak(Box::new(open(&library).unwrap()));
    let ticket = nccl.ticket().unwrap();
    assert_eq!(ticket[..3], [0, 3, 6]);
    let group = |rank, size| Group { rank, size, meeting: String::new() };

    let mut communicator = Communicator::start(nccl, &group(1, 2), &ticket).unwrap();
    assert_eq!(looks(&communicator), 4);
    let mut numbers = [1.5f32, -2.0, 7.0];
    let at = numbers.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the stand-in touches the two numbers, here, and no stream.
    unsafe { communicator.add_up(at, 2, std::ptr::without_provenance_mut(8)) }.unwrap();
    assert_eq!((numbers, looks(&communicator)), ([3.0, -4.0, 7.0], 4));
    assert_eq!(aborted(), 0);
    drop(communicator);
    assert_eq!(aborted(), 1);

    // What NCCL says is in the error; what it did not make is not aborted.
    let error = Communicator::start(nccl, &group(0, 2), &[1; TICKET_BYTES]).err().unwrap();
    assert!(error.to_string().contains("invalid argument (another id)"), "{error}");
    assert_eq!(aborted(), 1);
    // A failure in the background.
    let communicator = Communicator::start(nccl, &group(2, 3), &ticket).unwrap();
    let error = communicator.settled().unwrap_err();
    assert!(error.to_string().contains("remote error"), "{error}");
    drop(communicator);
    assert_eq!(aborted(), 2);
}

#[test]
fn a_library_that_will_not_do_is_an_error() {
    let error = Nccl::open(&["libnccl-of-nobody.so"]).err().unwrap();
    assert!(matches!(error, CudaError::Missing { library: "libnccl.so.2", .. }), "{error}");
    for flags in [&["-DVERSION=21708", "-DWHOLE"][..], &["-DVERSION=22703"]] {
        let Some((_folder, library)) = built(flags) else { return };
        let error = open(&library).err().unwrap();
        assert!(matches!(error, CudaError::TooOld { what: "NCCL", .. }), "{error}");
    }
}

/// The real one makes an id without a card.
#[test]
fn this_machines_nccl_makes_tickets() {
    match Nccl::get() {
        Ok(nccl) => assert_ne!(nccl.ticket().unwrap(), nccl.ticket().unwrap()),
        Err(error @ CudaError::Missing { .. }) => eprintln!("SKIPPED: NCCL is not called: {error}"),
        Err(error) => panic!("{error}"),
    }
}

/// All cards of this machine, a thread each. Where there is one, it is alone, and NCCL runs all the same.
#[test]
fn the_cards_of_this_machine_add_up() {
    const WORDS: usize = 1_000_003;
    let cards: Vec<Card> = (0..).map_while(|ordinal| Card::open(ordinal).ok()).collect();
    let missing = Nccl::get().err().map(|error| error.to_string());
    if let Some(reason) = missing.or(cards.is_empty().then(|| "no card".to_owned())) {
        eprintln!("SKIPPED: nothing is added up on cards: {reason}");
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let size = cards.len();
    let add_up = |rank: usize, card: &Card| {
        let mut peers = card.join(&Group { rank, size, meeting: free.to_string() }).unwrap();
        let mut lane = card.lane(1, 1).unwrap();
        let numbers: Vec<u32> = (0..WORDS).map(|i| ((i % 1000 + rank) as f32).to_bits()).collect();
        let memory = card.upload(&numbers).unwrap();
        for (at, words) in [(0, WORDS), (17, 5), (0, 0)] {
            card.add_up(&mut lane, &mut peers, &memory, at, words).unwrap();
        }
        let mut got = vec![0; WORDS];
        card.read(&mut lane, &memory, 0, &mut got).unwrap();
        got.into_iter().map(f32::from_bits).collect::<Vec<f32>>()
    };
    let got: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let add_up = &add_up;
        let threads: Vec<_> =
            (0..).zip(&cards).map(|(rank, card)| scope.spawn(move || add_up(rank, card))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Whole numbers, so that no order of summands matters.
    let once = |i: usize| (0..size).map(|rank| (i % 1000 + rank) as f32).sum::<f32>();
    let again = |i: usize| if (17..22).contains(&i) { size as f32 } else { 1.0 };
    let want: Vec<f32> = (0..WORDS).map(|i| once(i) * again(i)).collect();
    assert!(got.iter().all(|got| *got == want));
}
