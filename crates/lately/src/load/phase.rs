//! Phases: the same requests at other rates, each with events beside it and a look at the server meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Runtime;

use super::arrivals::Segment;
use super::client::{Client, ask_for_precedence, raise_file_limit};
use super::drive::{Source, Target, closed, open, sleep_until};
use super::record::{Record, Recorder};
use super::report::{Phase, Stream, Used, seconds};
use super::server::{Server, Usage};
use super::workload::Workload;

/// Length of a bin of most phases.
const SECOND: Duration = Duration::from_secs(1);
/// Between looks at the server.
const LOOK: Duration = Duration::from_millis(500);
/// Longer than any phase.
const ENDLESS: Duration = Duration::from_secs(7 * 86_400);
/// Cores for each thread that sends: one thread sends thousands a second.
const CORES_A_THREAD: usize = 8;

/// All that phases share.
pub(crate) struct Bench {
    /// What is loaded, if it is ours.
    pub(crate) server: Option<Server>,
    pub(crate) workload: Arc<Workload>,
    target: Target,
    events_per_second: f64,
    /// Of the next stream.
    seed: u64,
    /// Keeps the threads that send.
    _runtime: Runtime,
}

/// What was seen of rankings, and beside them.
pub(crate) struct Watched {
    /// A record a segment.
    pub(crate) records: Vec<Record>,
    events: Option<Record>,
    /// The server's use by time since the start, s.
    samples: Vec<(f64, Usage)>,
    /// Cores that this program took.
    own: Option<f64>,
    /// For how long was sent, s.
    pub(crate) seconds: f64,
}

impl Bench {
    /// Loads the data door at `data`.
    pub(crate) fn new(
        server: Option<Server>,
        data: &str,
        workload: Arc<Workload>,
        deadline: Duration,
        events_per_second: f64,
        seed: u64,
    ) -> Result<Self> {
        raise_file_limit();
        ask_for_precedence(); // after the server was started, which does not have it
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(CORES_A_THREAD))
            .thread_name("bench-send")
            .enable_all()
            .build()
            .context("cannot start the threads that send")?;
        let target = Target { client: Client::new(data)?, runtime: runtime.handle().clone(), deadline };
        Ok(Self { server, workload, target, events_per_second, seed, _runtime: runtime })
    }

    fn next_seed(&mut self) -> u64 {
        self.seed += 1;
        self.seed
    }

    /// Rankings in open loop by segments, each with bins of its length.
    pub(crate) fn open(&mut self, segments: &[(Segment, Duration)]) -> Result<Watched> {
        let source = Source::Rankings(Arc::clone(&self.workload));
        self.open_until(&source, segments, |_, _| Ok(())).map(|(watched, ())| watched)
    }

    /// One segment in open loop.
    pub(crate) fn steady(&mut self, name: &str, rate: f64, time: Duration) -> Result<Phase> {
        let segment = Segment { rate, time };
        let watched = self.open(&[(segment, SECOND)])?;
        watched.phases(&[name], &[segment]).pop().context("a phase is missing")
    }

    /// Rankings in open loop while something is done, until that is done.
    pub(crate) fn during<T: Send>(
        &mut self,
        name: &str,
        source: &Source,
        rate: f64,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Phase, T)> {
        let segment = Segment { rate, time: ENDLESS };
        let (watched, done) = self.open_until(source, &[(segment, SECOND)], |_, stop| {
            let _stop = StopAtEnd(stop);
            work()
        })?;
        let measured = Segment { time: Duration::from_secs_f64(watched.seconds), ..segment };
        let phase = watched.phases(&[name], &[measured]).pop().context("a phase is missing")?;
        Ok((phase, done))
    }

    fn open_until<T: Send>(
        &mut self,
        source: &Source,
        segments: &[(Segment, Duration)],
        work: impl FnOnce(&Target, &AtomicBool) -> Result<T> + Send,
    ) -> Result<(Watched, T)> {
        let plan: Vec<(Segment, Arc<Recorder>)> =
            segments.iter().map(|(segment, bin)| (*segment, Arc::new(Recorder::new(*bin)))).collect();
        let (seed, stop, target) = (self.next_seed(), AtomicBool::new(false), self.target.clone());
        let (mut watched, done) = self.watch(true, || {
            std::thread::scope(|scope| {
                let work = scope.spawn(|| work(&target, &stop));
                let sent_for = open(&target, source, &plan, &stop, seed);
                Ok::<_, anyhow::Error>((sent_for, joined(work)??))
            })
        })?;
        let (sent_for, done) = done?;
        watched.seconds = sent_for.as_secs_f64();
        watched.records = plan.iter().map(|(_, recorder)| recorder.get()).collect();
        Ok((watched, done))
    }

    /// Rankings in closed loop; `events` beside them or not.
    pub(crate) fn closed(
        &mut self,
        name: &str,
        clients: usize,
        time: Duration,
        events: bool,
    ) -> Result<Phase> {
        let recorder = Arc::new(Recorder::new(SECOND));
        let source = Source::Rankings(Arc::clone(&self.workload));
        let (seed, target) = (self.next_seed(), self.target.clone());
        let (mut watched, ()) =
            self.watch(events, || closed(&target, &source, clients, time, &recorder, seed))?;
        watched.seconds = time.as_secs_f64();
        watched.records = vec![recorder.get()];
        let segment = Segment { rate: 0.0, time };
        let mut phase = watched.phases(&[name], &[segment]).pop().context("a phase is missing")?;
        (phase.rate, phase.clients) = (None, Some(clients));
        Ok(phase)
    }

    /// Does something while events flow in and the server is looked at.
    fn watch<T>(&mut self, with_events: bool, run: impl FnOnce() -> T) -> Result<(Watched, T)> {
        let (seed, stop) = (self.next_seed(), AtomicBool::new(false));
        let rate = if with_events { self.events_per_second } else { 0.0 };
        std::thread::scope(|scope| {
            let events = (rate > 0.0).then(|| self.events(scope, rate, seed, &stop));
            let looks = scope.spawn(|| self.look(&stop));
            let (start, before) = (Instant::now(), Usage::of("self")?);
            let end = StopAtEnd(&stop);
            let done = run();
            drop(end);
            let own = |now: Usage, then: Usage| {
                (now.cpu_seconds - then.cpu_seconds) / start.elapsed().as_secs_f64()
            };
            let own = Usage::of("self")?.zip(before).map(|(now, then)| own(now, then));
            let events = events.map(joined).transpose()?;
            let samples = joined(looks)??;
            Ok((Watched { records: Vec::new(), events, samples, own, seconds: 0.0 }, done))
        })
    }

    fn events<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        rate: f64,
        seed: u64,
        stop: &'scope AtomicBool,
    ) -> std::thread::ScopedJoinHandle<'scope, Record> {
        scope.spawn(move || {
            let recorder = Arc::new(Recorder::new(SECOND));
            let source = Source::Actions(Arc::clone(&self.workload));
            let segment = Segment { rate, time: ENDLESS };
            open(&self.target, &source, &[(segment, Arc::clone(&recorder))], stop, seed);
            recorder.get()
        })
    }

    /// Looks at the server at once, every so often and at the end.
    fn look(&self, stop: &AtomicBool) -> Result<Vec<(f64, Usage)>> {
        let Some(server) = &self.server else { return Ok(Vec::new()) };
        let (start, mut samples) = (Instant::now(), Vec::new());
        loop {
            let last = stop.load(Ordering::Relaxed);
            let Some(usage) = server.usage()? else { return Ok(samples) };
            samples.push((start.elapsed().as_secs_f64(), usage));
            if last {
                return Ok(samples);
            }
            sleep_until(Instant::now() + LOOK, stop);
        }
    }
}

/// Stops what runs until then, also where the work panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the load panicked"))
}

impl Watched {
    /// A phase a record, each with the use of its time; events are those of the whole.
    pub(crate) fn phases(&self, names: &[&str], segments: &[Segment]) -> Vec<Phase> {
        let events = self.events.as_ref().map(|e| Stream::of(e, self.seconds));
        let mut start = 0.0;
        let mut one = |((record, name), segment): ((&Record, &&str), &Segment)| {
            let (time, samples) = (segment.time.as_secs_f64(), self.samples_from(start, segment.time));
            start += time;
            Phase {
                name: (*name).to_owned(),
                rate: Some(segment.rate),
                clients: None,
                seconds: time,
                rankings: Stream::of(record, time),
                events: events.clone(),
                server: Used::of(&samples),
                generator_cores: self.own,
                mixed: record.mixed,
                series: seconds(record, &samples),
            }
        };
        self.records.iter().zip(names).zip(segments).map(&mut one).collect()
    }

    /// The looks of a part of the time, and the one after it, by time since its start, s.
    fn samples_from(&self, start: f64, time: Duration) -> Vec<(f64, Usage)> {
        let end = start + time.as_secs_f64();
        let after = self.samples.iter().position(|(at, _)| *at >= end).map_or(self.samples.len(), |n| n + 1);
        let within = self.samples[..after].iter().filter(|(at, _)| *at >= start);
        within.map(|(at, usage)| (at - start, *usage)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_the_use_of_its_time() {
        let usage = |n: u64| Usage { cpu_seconds: n as f64, rss: n, peak: n };
        let samples = (0..7).map(|n| (n as f64 * 0.5, usage(n))).collect();
        let watched = Watched { records: Vec::new(), events: None, samples, own: None, seconds: 3.0 };
        let of = |start, ms| -> Vec<u64> {
            let of = watched.samples_from(start, Duration::from_millis(ms));
            of.iter().map(|(_, usage)| usage.rss).collect()
        };
        assert_eq!((of(0.0, 1_000), of(1.0, 1_200)), (vec![0, 1, 2], vec![2, 3, 4, 5]));
        assert_eq!(of(2.2, 9_000), [5, 6], "the last part lasts until nothing is in work");
        assert_eq!(watched.samples_from(1.0, SECOND)[0].0, 0.0);
    }
}
