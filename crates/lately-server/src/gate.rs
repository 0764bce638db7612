//! Blocking work on the store runs on threads that may block, so many at a time, the rest is shed. Rankings have an
//! [`Admission`](crate::admission::Admission) of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::ApiError;

pub(crate) struct Gate {
    places: Arc<Semaphore>,
    wait: Duration,
}

impl Gate {
    pub(crate) fn new(places: usize, wait: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))), wait }
    }

    /// Runs blocking work in its turn. The place is held until the work ends, also where nobody waits for it any
    /// more: otherwise clients that give up would fill the threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = tokio::time::timeout(self.wait, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(ApiError::overloaded("too many requests in work", Duration::ZERO));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        done.await.map_err(|error| ApiError::internal("a request's thread", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_get_its_turn_is_shed_and_a_place_is_held_until_the_work_ends() {
        let gate = Gate::new(1, Duration::from_millis(20));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let abandoned = tokio::time::timeout(Duration::from_millis(20), gate.run(move || held.recv())).await;
        assert!(abandoned.is_err(), "the client gave up, the work did not");
        assert_eq!(gate.run(|| ()).await.unwrap_err().code, "overloaded");
        release.send(()).unwrap();
        let mut answer = gate.run(|| 7).await;
        for _ in 0..100 {
            if answer.is_ok() {
                break;
            }
            answer = gate.run(|| 7).await;
        }
        assert_eq!(answer.unwrap(), 7);
    }
}
