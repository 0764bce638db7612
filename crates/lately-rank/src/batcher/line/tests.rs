use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
/// A line in which a unit takes a thread 10 us, once it is known.
const UNIT: Duration = Duration::from_micros(10);

struct Test {
    line: Line<u32>,
    now: Instant,
    gone: Vec<(u32, ScoreError)>,
}

fn test(threads: usize) -> Test {
    let bounds = Bounds {
        threads,
        units: 10_000,
        tile_rows: 128,
        tile_units: 2_000,
        target: 5 * MS,
        interval: 100 * MS,
    };
    Test { line: Line::new(bounds), now: Instant::now(), gone: Vec::new() }
}

impl Test {
    /// As a thread that has measured what a unit takes, and is still busy with `units`.
    fn busy(mut self, units: u64) -> Self {
        self.line.pace.measure(1_000, 1_000 * UNIT);
        self.line.in_work += units;
        self
    }

    fn ask(&self, load: u32, rows: usize) -> Ask<u32> {
        Ask {
            load,
            model: 1,
            rows,
            row_units: 1,
            priority: Priority::Interactive,
            since: self.now,
            deadline: self.now + 10_000 * MS,
            whole: false,
            taken: 0,
        }
    }

    fn submit(&mut self, ask: Ask<u32>) -> Result<(), ScoreError> {
        self.line.submit(self.now, ask, &mut self.gone)
    }

    fn asks(&mut self, rows: &[usize]) {
        for (load, rows) in rows.iter().enumerate() {
            self.submit(self.ask(load as u32, *rows)).unwrap();
        }
    }

    fn background(&mut self, load: u32, rows: usize) -> Result<(), ScoreError> {
        self.submit(Ask { priority: Priority::Background, ..self.ask(load, rows) })
    }

    /// Takes a call and ends it at once; its pieces.
    fn take(&mut self) -> Vec<(u32, Range<usize>)> {
        let taken = self.line.take(self.now);
        self.line.done(taken.units, None);
        self.gone.extend(taken.gone);
        taken.pieces.into_iter().map(|p| (p.load, p.rows)).collect()
    }
}

fn reason(result: &Result<(), ScoreError>) -> Option<Shed> {
    match result {
        Err(ScoreError::Overloaded { reason, .. }) => Some(*reason),
        _ => None,
    }
}

#[test]
fn small_requests_share_a_call_in_order_of_arrival() {
    let mut test = test(1);
    test.asks(&[40, 50, 30, 60, 20]);
    assert_eq!(
        test.take(),
        [(0, 0..40), (1, 0..50), (2, 0..30)],
        "8 rows more would repeat a user for little"
    );
    assert_eq!(test.take(), [(3, 0..60), (4, 0..20)]);
    assert_eq!(test.take(), []);
    assert_eq!(test.line.units(), [0, 0]);
}

#[test]
fn a_large_request_is_cut_among_the_idle_threads_and_finished_first() {
    let mut test = test(2);
    test.line.idle = 1;
    test.asks(&[40]);
    assert_eq!(test.take(), [(0, 0..20)], "the other thread has its share");
    test.line.idle = 0;
    assert_eq!(test.take(), [(0, 20..40)]);
    test.asks(&[300, 10]);
    assert_eq!(test.take(), [(0, 0..128)]);
    assert_eq!(test.take(), [(0, 128..256)]);
    assert_eq!(test.take(), [(0, 256..300), (1, 0..10)], "company for what is left");
}

#[test]
fn requests_for_a_device_are_never_cut_and_fill_calls_of_2_000_rows() {
    let mut test = test(2);
    test.line.idle = 1;
    for (load, rows) in [(0, 1_500), (1, 480), (2, 500), (3, 1_990)] {
        test.submit(Ask { whole: true, row_units: 1, ..test.ask(load, rows) }).unwrap();
    }
    assert_eq!(test.take(), [(0, 0..1_500), (1, 0..480)], "20 rows of the next one are left out");
    assert_eq!(test.take(), [(2, 0..500)]);
    assert_eq!(test.take(), [(3, 0..1_990)]);
    test.submit(Ask { whole: true, row_units: 100, ..test.ask(4, 50) }).unwrap();
    assert_eq!(test.take(), [(4, 0..50)], "5,000 units are more than the CPU's tile");
    test.submit(Ask { model: 2, ..test.ask(5, 300) }).unwrap();
    assert_eq!(test.take(), [(5, 0..128)], "a model on the CPU beside it");
}

#[test]
fn a_call_is_bounded_in_units_and_holds_a_row_at_least() {
    let mut test = test(1);
    let long = |load, test: &Test| Ask { row_units: 100, ..test.ask(load, 30) };
    for load in 0..2 {
        test.submit(long(load, &test)).unwrap();
    }
    assert_eq!(test.take(), [(0, 0..19)], "with the user's part 20 times 100 units");
    assert_eq!(test.take(), [(0, 19..30)], "no room for 16 more rows with their user");
    assert_eq!(test.take(), [(1, 0..19)]);
    test.submit(Ask { row_units: 5_000, ..test.ask(3, 1) }).unwrap_err();
    test.take();
    test.submit(Ask { row_units: 50_000, ..test.ask(4, 2) }).unwrap();
    assert_eq!(test.take(), [(4, 0..1)]);
}

#[test]
fn requests_of_another_model_wait_for_the_next_call() {
    let mut test = test(1);
    for (load, model) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
        test.submit(Ask { model, ..test.ask(load, 5) }).unwrap();
    }
    assert_eq!(test.take(), [(0, 0..5), (2, 0..5)]);
    assert_eq!(test.take(), [(1, 0..5), (3, 0..5)]);
}

#[test]
fn company_is_not_taken_where_it_would_outlast_a_deadline() {
    let mut test = test(1).busy(0);
    let soon = test.now + 1_200 * Duration::from_micros(1); // 101 units take 1,010 us, 202 take 2,020
    test.submit(Ask { deadline: soon, ..test.ask(0, 100) }).unwrap();
    test.asks(&[100]);
    test.line.waiting[0][1].load = 1;
    assert_eq!(test.take(), [(0, 0..100)]);
    assert_eq!(test.take(), [(0, 0..100)].map(|(_, rows)| (1, rows)));
}

#[test]
fn background_waits_for_all_that_is_interactive_and_is_not_forgotten() {
    let mut test = test(1);
    test.background(7, 10).unwrap();
    test.asks(&[200, 10]);
    assert_eq!(test.take(), [(0, 0..128)]);
    assert_eq!(test.take(), [(0, 128..200), (1, 0..10)], "no background beside interactive requests");
    assert_eq!(test.take(), [(7, 0..10)]);
}

#[test]
fn what_is_over_is_not_scored() {
    let mut test = test(1);
    test.submit(Ask { deadline: test.now + MS, ..test.ask(0, 300) }).unwrap();
    test.submit(Ask { deadline: test.now + MS, ..test.ask(1, 10) }).unwrap();
    test.asks(&[]);
    test.submit(test.ask(2, 10)).unwrap();
    assert_eq!(test.take(), [(0, 0..128)]);
    test.now += 2 * MS;
    assert_eq!(test.take(), [(2, 0..10)]);
    assert_eq!(test.gone, [(0, ScoreError::DeadlineExceeded), (1, ScoreError::DeadlineExceeded)]);
    test.submit(test.ask(3, 10)).unwrap();
    test.line.withdraw(|load| *load == 3);
    assert_eq!((test.take(), test.line.units()), (vec![], [0, 0]));
}

#[test]
fn what_cannot_be_done_in_time_is_refused_where_something_is_in_front() {
    let mut test = test(1);
    let short = |test: &Test, rows| Ask { deadline: test.now + 20 * MS, ..test.ask(9, rows) };
    test.submit(short(&test, 5_000)).unwrap(); // nothing is known, nothing is in front
    test.take();
    test.line.withdraw(|_| true);
    let mut test = self::test(1).busy(0);
    test.submit(short(&test, 5_000)).unwrap(); // nothing is in front
    test.line.withdraw(|_| true);

    let mut test = self::test(1).busy(2_000); // half of it is to come: 10 ms
    assert_eq!(test.submit(short(&test, 400)), Ok(()), "14 ms and a quarter");
    test.line.withdraw(|_| true);
    let late = test.submit(short(&test, 700));
    let ScoreError::Overloaded { reason: Shed::Late, retry_after } = late.unwrap_err() else { panic!() };
    assert_eq!(retry_after.as_millis(), 20);
    let hopeless = test.submit(short(&test, 5_000));
    assert_eq!(hopeless, Err(ScoreError::DeadlineExceeded), "to come again would not help");
    let mut test = self::test(4).busy(2_000);
    assert_eq!(test.submit(short(&test, 700)), Ok(()), "four threads are in time");
}

#[test]
fn the_line_is_bounded_and_background_takes_half_and_gives_way() {
    let mut test = test(1);
    test.background(7, 4_000).unwrap();
    test.background(8, 900).unwrap();
    assert_eq!(reason(&test.background(9, 900)), Some(Shed::QueueFull));
    test.asks(&[5_500]);
    assert_eq!(
        test.gone,
        [(8, ScoreError::Overloaded { reason: Shed::Displaced, retry_after: Duration::ZERO })]
    );
    assert_eq!(test.line.units(), [5_501, 4_001]);
    assert_eq!(reason(&test.submit(test.ask(1, 5_000))), Some(Shed::QueueFull));
    assert_eq!(test.gone.len(), 1, "background makes no room for what is refused");
    let mut test = self::test(1);
    test.asks(&[20_000]);
    assert_eq!(test.line.units(), [20_001, 0], "alone, more than the line holds");
    assert_eq!(reason(&test.submit(test.ask(1, 1))), Some(Shed::QueueFull));
    test.line.closed = true;
    assert_eq!(test.submit(test.ask(1, 1)), Err(ScoreError::Closed));
}

/// So many requests a ms, of which a thread takes one.
fn overload(test: &mut Test, ms: u32, each: u32, mut served: impl FnMut(u32, Duration)) {
    let start = test.now;
    let mut sent = std::collections::HashMap::new();
    for step in 0..ms {
        test.now = start + step * MS;
        for i in 0..each {
            let load = step * each + i;
            if test.submit(test.ask(load, 120)).is_ok() {
                sent.insert(load, test.now);
            }
        }
        for (load, _) in test.take() {
            served(step, test.now - sent[&load]);
        }
    }
}

#[test]
fn a_standing_queue_is_shed_at_the_door_and_the_thread_never_idles() {
    let mut test = test(1).busy(0);
    let (mut early, mut late, mut longest) = (0, 0, Duration::ZERO);
    overload(&mut test, 1_000, 10, |step, waited| match step {
        // An interval in which it was empty at first, and one in which it never was.
        0..=200 => early += 1,
        _ => (late, longest) = (late + 1, longest.max(waited)),
    });
    assert_eq!(early + late, 1_000, "one request a ms, as much as a thread can");
    assert!(longest <= 12 * MS, "twice the target and some: {longest:?}");
    assert!(test.line.units()[0] < 2_000, "{:?}", test.line.units());
    let standing =
        |gone: &&(u32, ScoreError)| matches!(gone.1, ScoreError::Overloaded { reason: Shed::Standing, .. });
    assert!(test.gone.iter().filter(standing).count() > 10, "what had waited when it was found out is shed");
    assert_eq!(reason(&test.background(0, 10)), Some(Shed::Standing));

    // The load ends: what waits is served, and the next is let in at once, background too.
    for _ in 0..30 {
        test.now += MS;
        test.take();
    }
    assert_eq!(test.line.units(), [0, 0]);
    test.asks(&[10]);
    test.background(7, 10).unwrap();
    assert_eq!((test.take(), test.take()), (vec![(0, 0..10)], vec![(7, 0..10)]));
}

#[test]
fn at_most_of_capacity_nothing_is_shed() {
    let mut test = test(1).busy(0);
    let start = test.now;
    for step in 0..2_000 {
        test.now = start + step * MS;
        // Seven in ten ms, all at once.
        for load in 0..if step % 10 == 0 { 7 } else { 0 } {
            test.submit(test.ask(load, 120)).unwrap();
        }
        test.take();
    }
    assert_eq!(test.gone, []);
}

#[derive(Debug, Clone)]
enum Step {
    Submit { rows: usize, row_units: u64, model: usize, background: bool, deadline_ms: u32 },
    Take,
    Done,
    Withdraw(u32),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (1..400usize, 1..60u64, 0..3usize, any::<bool>(), 1..200u32);
    let step = prop_oneof![
        4 => submit.prop_map(|(rows, row_units, model, background, deadline_ms)| Step::Submit {
            rows, row_units, model, background, deadline_ms,
        }),
        4 => Just(Step::Take),
        3 => Just(Step::Done),
        1 => (0..100u32).prop_map(Step::Withdraw),
        2 => (0..40u32).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever comes: each row of a request is taken once and in order, or the request is told why not, once; the line
    /// stays within its bound, and at the end nothing is left in it.
    #[test]
    fn nothing_is_lost_or_done_twice(steps in steps(), threads in 1..5usize) {
        let mut test = test(threads);
        let (mut open, mut calls) = (std::collections::HashMap::new(), Vec::new());
        let end = [Step::Take, Step::Done].into_iter().cycle().take(2_000);
        for (load, step) in steps.into_iter().chain(end).enumerate() {
            match step {
                Step::Submit { rows, row_units, model, background, deadline_ms } => {
                    let priority = if background { Priority::Background } else { Priority::Interactive };
                    let deadline = test.now + deadline_ms * MS;
                    let ask = Ask { model, row_units, priority, deadline, ..test.ask(load as u32, rows) };
                    let [interactive, background] = test.line.units();
                    let alone = interactive + if priority == Priority::Background { background } else { 0 } == 0;
                    if test.submit(ask).is_ok() {
                        let waiting = test.line.units().iter().sum::<u64>();
                        prop_assert!(alone || waiting <= 10_000, "{waiting} units wait");
                        open.insert(load as u32, (rows, 0));
                    }
                }
                Step::Take => {
                    let taken = test.line.take(test.now);
                    prop_assert!(taken.pieces.iter().map(|p| p.rows.len()).sum::<usize>() <= 128);
                    prop_assert!(taken.units <= 2_000 || taken.pieces.len() == 1);
                    for piece in &taken.pieces {
                        let (rows, next) = open.get_mut(&piece.load).expect("open");
                        prop_assert_eq!(piece.rows.start, *next, "in order, each row once");
                        prop_assert!(piece.waited.is_some() == (*next == 0));
                        *next = piece.rows.end;
                        prop_assert!(*next <= *rows);
                        if next == rows {
                            open.remove(&piece.load);
                        }
                    }
                    calls.push(taken.units);
                    test.gone.extend(taken.gone);
                }
                Step::Done => if let Some(units) = calls.pop() {
                    test.line.done(units, Some(UNIT * units as u32));
                },
                Step::Withdraw(which) => {
                    open.remove(&which);
                    test.line.withdraw(|load| *load == which);
                }
                Step::Wait(ms) => test.now += ms * MS,
            }
            for (load, _) in test.gone.drain(..) {
                prop_assert!(open.remove(&load).is_some(), "told once, and not after its last row");
            }
        }
        calls.into_iter().for_each(|units| test.line.done(units, None));
        prop_assert!(open.is_empty(), "{open:?}");
        prop_assert_eq!((test.line.units(), test.line.in_work), ([0, 0], 0));
    }
}
