//! When a picture steers a job, and how strongly.

use std::sync::Arc;

use crate::tensor::Tensor;

/// A picture that steers a job through a ControlNet.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// The index of the ControlNet in the bundle.
    pub net: usize,
    /// The picture, [3, height, width] in 0..1.
    pub picture: Tensor,
    /// What the residuals are multiplied by.
    pub scale: f64,
    /// The share of the evaluations before the first one that counts.
    pub start: f64,
    /// The share of the evaluations after which none counts.
    pub end: f64,
}

impl Control {
    /// Whether the control counts at evaluation i of n, from 0.
    pub fn counts_at(&self, i: usize, n: usize) -> bool {
        is_in_window([self.start, self.end], i, n)
    }
}

/// Whether evaluation i of n, from 0, lies between two shares of the evaluations, as the pipelines of diffusers decide it.
pub(crate) fn is_in_window([start, end]: [f64; 2], i: usize, n: usize) -> bool {
    let (i, n) = (i as f64, n as f64);
    !(i / n < start || (i + 1.0) / n > end)
}

/// The controls of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobControls {
    /// The pictures.
    pub controls: Vec<Control>,
    /// Whether only evaluations with the prompt are controlled, and residuals grow from the first skip connection to the
    /// middle (guess mode of Zhang et al. 2023).
    pub guess_mode: bool,
}

/// The controls of a sample in a batch.
#[derive(Debug, Clone)]
pub struct SampleControls {
    /// Those of its job.
    pub job: Arc<JobControls>,
    /// The evaluation of its image, from 0.
    pub evaluation: usize,
    /// The number of evaluations of an image.
    pub evaluations: usize,
    /// Whether the sample is evaluated without the prompt.
    pub is_unconditional: bool,
}

impl SampleControls {
    /// The controls through this net that count for the sample.
    pub(super) fn active(&self, net: usize) -> impl Iterator<Item = &Control> {
        let is_skipped = self.job.guess_mode && self.is_unconditional;
        let counts = move |control: &&Control| {
            control.net == net && !is_skipped && control.counts_at(self.evaluation, self.evaluations)
        };
        self.job.controls.iter().filter(counts)
    }

    /// What residual i of n of a control is multiplied by. A net that pools has the same factor for all.
    pub(super) fn factor(&self, control: &Control, pools: bool, i: usize, n: usize) -> f32 {
        let of_guess = if self.job.guess_mode && !pools { guess_factor(i, n) } else { 1.0 };
        (control.scale * of_guess) as f32
    }
}

/// 10^(−1 + i/(n − 1)), from 0.1 for the first skip connection to 1 for the middle.
fn guess_factor(i: usize, n: usize) -> f64 {
    10f64.powf(-1.0 + i as f64 / (n.max(2) - 1) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn control(start: f64, end: f64) -> Control {
        Control { net: 0, picture: Tensor::default(), scale: 0.5, start, end }
    }

    fn sample(guess_mode: bool, is_unconditional: bool) -> SampleControls {
        let job = Arc::new(JobControls { controls: vec![control(0.0, 1.0)], guess_mode });
        SampleControls { job, evaluation: 0, evaluations: 10, is_unconditional }
    }

    #[test]
    fn a_window_counts_whole_evaluations() {
        let counted =
            |start, end, n| (0..n).filter(|i| control(start, end).counts_at(*i, n)).collect::<Vec<_>>();
        assert_eq!(counted(0.0, 1.0, 3), [0, 1, 2]);
        assert_eq!(counted(0.2, 0.8, 10), [2, 3, 4, 5, 6, 7]);
        assert_eq!(counted(0.25, 0.75, 10), [3, 4, 5, 6]);
        assert_eq!(counted(0.5, 0.55, 10), [] as [usize; 0]);
    }

    #[test]
    fn guess_mode_grows_to_the_middle_and_leaves_the_negative_prompt_alone() {
        let guessing = sample(true, false);
        let factors: Vec<_> =
            (0..13).map(|i| guessing.factor(&guessing.job.controls[0], false, i, 13)).collect();
        assert_eq!((factors[0], factors[12]), (0.05, 0.5));
        assert!((factors[6] - 0.5 * 10f32.powf(-0.5)).abs() < 1e-7);
        assert_eq!(guessing.factor(&guessing.job.controls[0], true, 0, 13), 0.5);
        let active = |guess_mode, is_unconditional| sample(guess_mode, is_unconditional).active(0).count();
        assert_eq!([active(true, true), active(true, false), active(false, true)], [0, 1, 1]);
        assert_eq!(sample(false, false).active(1).count(), 0);
    }

    proptest! {
        /// A window between two others never counts an evaluation that neither of them counts.
        #[test]
        fn windows_count_a_run_of_evaluations(start in 0.0..1.0f64, len in 0.0..1.0f64, n in 1usize..60) {
            let control = control(start, (start + len).min(1.0));
            let counted: Vec<_> = (0..n).filter(|i| control.counts_at(*i, n)).collect();
            prop_assert!(counted.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert!(counted.len() as f64 <= len * n as f64 + 1e-9);
            if start == 0.0 && control.end == 1.0 {
                prop_assert_eq!(counted.len(), n);
            }
        }
    }
}
