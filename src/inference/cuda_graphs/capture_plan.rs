//! Decides for each evaluation of a session whether it is captured.
//!
//! ONNX Runtime keeps every captured graph until its session is closed. A session therefore captures a bounded number of
//! shapes, and is opened again when others need the graphs more.

use std::collections::VecDeque;

/// The most graphs that a session captures. One takes a few MB beside its buffers.
const MAX_GRAPHS: usize = 16;
/// The limit of the buffers of all graphs on the GPU, and again in host memory, in bytes. The first graph may have more.
const MAX_BUFFER_BYTES: usize = 64 << 20;
/// The most shapes of which it is remembered that they were evaluated.
const MAX_SEEN: usize = 64;
/// How many evaluations run without a graph for want of room until the session is opened again. Each of them costs up to 30 ms
/// more than a replay, and opening costs a few seconds, so that at most twice the time is lost.
const EVALUATIONS_PER_OPENING: usize = 100;

/// The shapes of an evaluation's inputs, and the names of its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvaluationShape {
    /// The index of each input in the graph, with its shape.
    pub(crate) inputs: Vec<(usize, Vec<usize>)>,
    pub(crate) outputs: Vec<String>,
}

/// What to do with an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Evaluate it without a graph.
    Evaluate,
    /// Capture a graph. The shapes of the outputs are these.
    Capture(Vec<Vec<usize>>),
    /// Replay the graph with this index, counted from 0 in the order of capture.
    Replay(usize),
}

/// The shapes that a session has evaluated and captured.
///
/// The first evaluation of a shape runs without a graph: it shows the shapes of the outputs, and many shapes occur once. The
/// second one is captured.
#[derive(Debug, Default)]
pub(crate) struct CapturePlan {
    captured: Vec<EvaluationShape>,
    /// Shapes that were evaluated without a graph, with the shapes of their outputs; the latest last.
    seen: VecDeque<Seen>,
    /// The buffers of the captured graphs, in bytes.
    buffer_bytes: usize,
    /// The evaluations that would have been captured if there were room.
    missed: usize,
}

#[derive(Debug)]
struct Seen {
    shape: EvaluationShape,
    outputs: Vec<Vec<usize>>,
    /// The buffers of a graph for it, in bytes.
    buffer_bytes: usize,
}

impl CapturePlan {
    /// Decides about an evaluation.
    pub(crate) fn action(&self, shape: &EvaluationShape) -> Action {
        if let Some(index) = self.captured.iter().position(|captured| captured == shape) {
            return Action::Replay(index);
        }
        match self.seen.iter().find(|seen| seen.shape == *shape) {
            Some(seen) if self.has_room(seen.buffer_bytes) => Action::Capture(seen.outputs.clone()),
            _ => Action::Evaluate,
        }
    }

    fn has_room(&self, buffer_bytes: usize) -> bool {
        let is_small = self.buffer_bytes + buffer_bytes <= MAX_BUFFER_BYTES;
        self.captured.is_empty() || (self.captured.len() < MAX_GRAPHS && is_small)
    }

    /// Records an evaluation without a graph, whose outputs had these shapes. A graph for it has buffers of this size.
    pub(crate) fn record_evaluation(
        &mut self,
        shape: EvaluationShape,
        outputs: Vec<Vec<usize>>,
        buffer_bytes: usize,
    ) {
        if self.captured.contains(&shape) {
            return;
        }
        let known = self.seen.iter().position(|seen| seen.shape == shape);
        if known.is_some() && !self.has_room(buffer_bytes) {
            self.missed += 1;
        }
        if let Some(known) = known {
            self.seen.remove(known);
        }
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { shape, outputs, buffer_bytes });
    }

    /// Records that the graph with the next index was captured.
    pub(crate) fn record_capture(&mut self, shape: EvaluationShape) {
        if let Some(index) = self.seen.iter().position(|seen| seen.shape == shape) {
            self.buffer_bytes += self.seen.remove(index).map_or(0, |seen| seen.buffer_bytes);
        }
        self.captured.push(shape);
    }

    /// Whether enough evaluations had no graph for lack of room to open the session again.
    pub(crate) fn is_due_for_opening(&self) -> bool {
        self.missed >= EVALUATIONS_PER_OPENING
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn shape(size: usize) -> EvaluationShape {
        EvaluationShape { inputs: vec![(0, vec![1, 4, size, size])], outputs: vec!["out".to_owned()] }
    }

    /// Makes an evaluation as a session does. Returns what was done.
    fn evaluate(plan: &mut CapturePlan, size: usize, buffer_bytes: usize) -> Action {
        let action = plan.action(&shape(size));
        match &action {
            Action::Evaluate => plan.record_evaluation(shape(size), vec![vec![size]], buffer_bytes),
            Action::Capture(_) => plan.record_capture(shape(size)),
            Action::Replay(_) => {}
        }
        action
    }

    #[test]
    fn the_second_evaluation_of_a_shape_is_captured_and_the_third_replayed() {
        let mut plan = CapturePlan::default();
        let actions = |plan: &mut CapturePlan, size| [(); 3].map(|()| evaluate(plan, size, MIB));
        let expected =
            |size, index| [Action::Evaluate, Action::Capture(vec![vec![size]]), Action::Replay(index)];
        assert_eq!(actions(&mut plan, 64), expected(64, 0));
        assert_eq!(actions(&mut plan, 32), expected(32, 1));
        assert_eq!(evaluate(&mut plan, 64, MIB), Action::Replay(0));
        // Other outputs are another graph.
        let other = EvaluationShape { outputs: vec!["hidden".to_owned()], ..shape(64) };
        assert_eq!(plan.action(&other), Action::Evaluate);
    }

    #[test]
    fn beyond_the_largest_number_of_graphs_evaluations_have_none_until_the_session_is_opened_again() {
        let mut plan = CapturePlan::default();
        for size in 0..=MAX_GRAPHS {
            evaluate(&mut plan, size, MIB);
            evaluate(&mut plan, size, MIB);
        }
        assert_eq!(evaluate(&mut plan, 0, MIB), Action::Replay(0));
        for _ in 0..EVALUATIONS_PER_OPENING - 1 {
            assert!(!plan.is_due_for_opening());
            assert_eq!(evaluate(&mut plan, MAX_GRAPHS, MIB), Action::Evaluate);
        }
        assert!(plan.is_due_for_opening());
    }

    #[test]
    fn shapes_that_occur_once_do_not_open_the_session_again() {
        let mut plan = CapturePlan::default();
        for size in 0..MAX_GRAPHS {
            evaluate(&mut plan, size, MIB);
            evaluate(&mut plan, size, MIB);
        }
        for size in 0..10 * EVALUATIONS_PER_OPENING {
            evaluate(&mut plan, MAX_GRAPHS + size, MIB);
        }
        assert!(!plan.is_due_for_opening());
    }

    #[test]
    fn large_buffers_leave_room_for_one_graph() {
        let mut plan = CapturePlan::default();
        for size in [1, 2] {
            evaluate(&mut plan, size, MAX_BUFFER_BYTES + 1);
            evaluate(&mut plan, size, MAX_BUFFER_BYTES + 1);
        }
        assert_eq!(evaluate(&mut plan, 1, 0), Action::Replay(0));
        assert_eq!(evaluate(&mut plan, 2, MAX_BUFFER_BYTES + 1), Action::Evaluate);
    }

    proptest! {
        #[test]
        fn graphs_and_buffers_are_bounded(sizes in prop::collection::vec(0_usize..40, 0..400)) {
            let mut plan = CapturePlan::default();
            let mut captured = Vec::new();
            for size in sizes {
                let bytes = size * MIB / 2;
                match evaluate(&mut plan, size, bytes) {
                    Action::Capture(outputs) => {
                        prop_assert_eq!(outputs, vec![vec![size]]);
                        prop_assert!(!captured.contains(&size));
                        captured.push(size);
                    }
                    Action::Replay(index) => prop_assert_eq!(captured[index], size),
                    Action::Evaluate => prop_assert!(!captured.contains(&size)),
                }
                prop_assert!(captured.len() <= MAX_GRAPHS && plan.seen.len() <= MAX_SEEN);
                let all: usize = captured.iter().map(|size| size * MIB / 2).sum();
                prop_assert_eq!(plan.buffer_bytes, all);
                prop_assert!(captured.len() <= 1 || all <= MAX_BUFFER_BYTES);
            }
        }
    }
}
