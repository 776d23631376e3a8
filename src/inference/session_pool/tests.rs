use std::sync::mpsc;

use super::*;
use crate::inference::session::Input;
use crate::tensor::GraphIo;

/// A session without inputs and outputs.
struct Empty(GraphIo);

impl Session for Empty {
    fn graph(&self) -> &GraphIo {
        &self.0
    }

    fn run_all(
        &mut self,
        _: &[Input<'_>],
        _: &[&str],
        _: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        Ok(Vec::new())
    }
}

/// Two sessions of ten bytes each in a pool with a budget, and a log of which session was opened.
fn two(budget: Option<u64>) -> (SessionPool, [PooledSession; 2], mpsc::Receiver<usize>) {
    let pool = SessionPool::with_budget(budget);
    let (opened, log) = mpsc::sync_channel(100);
    let session = |index: usize| {
        let opened = opened.clone();
        let open = move || {
            opened.send(index).unwrap();
            Ok(Box::new(Empty(GraphIo::default())) as Box<dyn Session>)
        };
        pool.insert(["net", "net/vae"][index].to_owned(), SessionMemory::fixed(10), Box::new(open))
    };
    let sessions = [session(0), session(1)];
    (pool, sessions, log)
}

#[test]
fn sessions_that_fit_are_used_at_the_same_time() {
    let (pool, [denoiser, vae], log) = two(Some(20));
    assert!(pool.fits_denoiser_and_another("net"));
    denoiser.with_session(|_| vae.with_session(|_| ()).unwrap()).unwrap();
    denoiser.with_session(|_| ()).unwrap();
    drop((denoiser, vae, pool));
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_request_without_room_waits_and_is_served_before_later_ones() {
    let (pool, [denoiser, vae], log) = two(Some(19));
    assert!(!pool.fits_denoiser_and_another("net"));
    let (denoiser, vae) = (&denoiser, &vae);
    std::thread::scope(|scope| {
        let waiting = denoiser
            .with_session(|_| {
                let waiting = scope.spawn(|| vae.with_session(|_| ()).unwrap());
                while pool.lock().queue.is_empty() {
                    std::thread::yield_now();
                }
                waiting
            })
            .unwrap();
        // The other request came first, so that this one has to open its session again.
        denoiser.with_session(|_| ()).unwrap();
        waiting.join().unwrap();
    });
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn a_model_whose_name_is_a_prefix_of_another_has_its_own_sessions() {
    let (pool, _sessions, _log) = two(Some(20));
    let of_other = pool.for_new_model();
    let _other = of_other.insert("net-2".to_owned(), SessionMemory::fixed(0), Box::new(|| unreachable!()));
    let names = |pool: &SessionPool| pool.sizes().into_iter().map(|size| size.name).collect::<Vec<_>>();
    assert_eq!(
        (names(&pool), names(&of_other)),
        (vec!["net".into(), "net/vae".into()], vec!["net-2".into()])
    );
}

#[test]
fn a_model_is_closed_without_another_of_the_same_name_and_its_slots_are_used_again() {
    let (pool, [denoiser, vae], log) = two(None);
    let of_other = pool.for_new_model();
    let open = || Ok(Box::new(Empty(GraphIo::default())) as Box<dyn Session>);
    let other = of_other.insert("net".to_owned(), SessionMemory::fixed(10), Box::new(open));
    for session in [&denoiser, &vae, &other] {
        session.with_session(|_| ()).unwrap();
    }
    vae.with_session(|_| pool.close_model()).unwrap();
    // One that is in use stays open.
    assert_eq!([denoiser.is_open(), vae.is_open(), other.is_open()], [false, true, true]);
    denoiser.with_session(|_| ()).unwrap();
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
    drop(vae);
    let new = of_other.insert("net/vae".to_owned(), SessionMemory::fixed(0), Box::new(open));
    new.with_session(|_| ()).unwrap();
    assert_eq!([denoiser.is_open(), other.is_open(), new.is_open()], [true, true, true]);
    assert_eq!(pool.lock().slots.len(), 3);
}

#[test]
fn a_session_larger_than_the_budget_is_opened_alone() {
    let (_pool, [denoiser, vae], log) = two(Some(5));
    for session in [&denoiser, &vae, &vae, &denoiser] {
        session.with_session(|_| ()).unwrap();
    }
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn a_closed_session_is_opened_again_at_its_next_use() {
    let (pool, [denoiser, vae], log) = two(None);
    denoiser.with_session(|_| ()).unwrap();
    vae.with_session(|_| vae.close()).unwrap();
    denoiser.close();
    assert_eq!([denoiser.is_open(), vae.is_open()], [false, true]);
    assert_eq!(pool.held(), 10);
    denoiser.with_session(|_| ()).unwrap();
    vae.with_session(|_| ()).unwrap();
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
}
