use super::*;

fn limits(min: usize, max: usize) -> Limits {
    Limits { rankings_min: min, rankings_max: max, rankings_waiting: 2, wait_ms: 40, ..Limits::default() }
}

fn admission(limits: &Limits) -> Arc<Admission> {
    Arc::new(Admission::new(limits))
}

async fn interactive(admission: &Arc<Admission>) -> Result<Permit, ApiError> {
    admission.admit(Priority::Interactive).await
}

#[tokio::test]
async fn beyond_the_limit_rankings_wait_a_while_in_order_and_are_refused() {
    let admission = admission(&limits(1, 1));
    let first = interactive(&admission).await.unwrap();
    assert_eq!(first.waited(), Duration::ZERO);
    let refused = interactive(&admission).await.err().unwrap();
    assert_eq!((refused.status.as_u16(), refused.code), (503, "overloaded"));
    assert!((1..=3).contains(&refused.retry_after.unwrap()));

    let (second, third) = (interactive(&admission), interactive(&admission));
    let (mut second, mut third) = (Box::pin(second), Box::pin(third));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut second).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut third).await.is_err());
    let begin = Instant::now();
    assert!(interactive(&admission).await.is_err(), "two wait already");
    assert!(begin.elapsed() < Duration::from_millis(20), "refused at once");
    drop(first);
    let second = second.await.unwrap();
    assert!(second.waited() > Duration::ZERO);
    assert!(third.await.is_err(), "the one who came first has the place");
    drop(second);
    assert!(interactive(&admission).await.is_ok());
    assert_eq!(admission.lock().in_work, 0);
}

#[tokio::test]
async fn who_goes_away_while_waiting_or_before_working_leaves_nothing_behind() {
    let admission = admission(&limits(1, 1));
    let first = interactive(&admission).await.unwrap();
    let mut waiting = Box::pin(interactive(&admission));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    assert_eq!(admission.lock().waiting, 1);
    drop(waiting);
    assert_eq!(admission.lock().waiting, 0);
    drop(first);
    drop(interactive(&admission).await.unwrap());
    assert_eq!((admission.lock().in_work, admission.places.available_permits()), (0, 1));
}

#[tokio::test]
async fn where_others_always_wait_one_does_not_wait_long() {
    let admission = admission(&Limits { rankings_waiting: 100, wait_ms: 200, ..limits(1, 1) });
    let _held = interactive(&admission).await.unwrap();
    // One comes every 50 ms, so that somebody always waits.
    let mut waits = tokio::task::JoinSet::new();
    for i in 0..12 {
        let admission = admission.clone();
        waits.spawn(async move {
            tokio::time::sleep(Duration::from_millis(50 * i)).await;
            let begin = Instant::now();
            assert!(interactive(&admission).await.is_err());
            (i, begin.elapsed())
        });
    }
    let mut waits = waits.join_all().await;
    waits.sort_unstable();
    assert!(waits[0].1 >= Duration::from_millis(200), "{waits:?}: the first is a burst");
    assert!(waits[5..].iter().any(|(_, wait)| *wait < Duration::from_millis(100)), "{waits:?}");
}

#[tokio::test]
async fn background_has_half_of_the_places_and_never_waits() {
    let admission = admission(&limits(4, 4));
    let background = || admission.admit(Priority::Background);
    let (first, second) = (background().await.unwrap(), background().await.unwrap());
    let begin = Instant::now();
    assert_eq!(background().await.err().unwrap().code, "overloaded");
    assert!(begin.elapsed() < Duration::from_millis(20));
    let mut late = interactive(&admission).await.unwrap();
    assert_eq!(late.lower().unwrap_err().code, "overloaded", "its body says background");
    drop(first);
    late.lower().unwrap();
    late.lower().unwrap();
    assert_eq!((admission.lock().background, late.priority()), (2, Priority::Background));
    drop((second, late));
    let state = admission.lock();
    assert_eq!((state.background, state.in_work), (0, 0));
}

#[tokio::test]
async fn the_limit_follows_what_rankings_tell_also_while_places_are_in_use() {
    let admission = admission(&limits(2, 64));
    let mut held = Vec::new();
    for _ in 0..START {
        held.push(interactive(&admission).await.unwrap());
    }
    let lost = Sample { lost: true, ..Sample::default() };
    while admission.lock().places > 2 {
        admission.ended(lost);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(admission.lock().owed, START - 2, "places in use go when they are given back");
    held.truncate(2);
    assert_eq!((admission.lock().owed, admission.places.available_permits()), (0, 0));
    held.truncate(1);
    assert_eq!(admission.places.available_permits(), 1);
    while admission.lock().places < 10 {
        let sample = Sample { took: Duration::from_millis(1), ..Sample::default() };
        admission.lock().in_work += 9;
        admission.ended(sample);
        admission.lock().in_work -= 9;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(admission.places.available_permits(), 9);
}

#[tokio::test]
async fn a_place_is_held_until_the_work_ends_and_its_end_is_measured() {
    let admission = admission(&limits(1, 1));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let permit = interactive(&admission).await.unwrap();
    let work = permit.run(move || {
        held.recv().unwrap();
        Err(RankError::NoCandidates)
    });
    let abandoned = tokio::time::timeout(Duration::from_millis(20), work).await;
    assert!(abandoned.is_err(), "the client gave up, the work did not");
    assert!(interactive(&admission).await.is_err());
    release.send(()).unwrap();
    let mut next = interactive(&admission).await;
    for _ in 0..100 {
        if next.is_ok() {
            break;
        }
        next = interactive(&admission).await;
    }
    let answer = next.unwrap().run(|| Err(RankError::NoCandidates)).await;
    assert_eq!(answer.unwrap_err().code, "no_candidates");
}

#[test]
fn refused_and_late_rankings_are_lost_and_bad_requests_say_nothing() {
    let took = Duration::from_millis(9);
    let overloaded = RankError::Overloaded { reason: lately_rank::Shed::Late, retry_after: took };
    assert!(sample(took, &Err(overloaded)).unwrap().lost);
    assert!(sample(took, &Err(RankError::NoCandidates)).is_none());
}
