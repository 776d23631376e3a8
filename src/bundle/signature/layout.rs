//! The axes of pictures in graphs of networks that could also make videos.

use crate::tensor::Dim;

/// The axes that a graph has for a batch of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SampleLayout {
    /// The batch, then the axes of a sample.
    #[default]
    Batched,
    /// Batch, channels, one frame, height and width.
    Frame,
    /// Channels, one frame, height and width of a single sample.
    SingleFrame,
}

impl SampleLayout {
    /// The layout of declared axes, and the axes of the batch and of a sample. `channels` are those of a sample.
    pub(in crate::bundle) fn split(declared: &[Dim], channels: Option<usize>) -> (Self, Vec<Dim>) {
        match declared {
            [batch, channels, Dim::Fixed(1), height, width] => {
                (Self::Frame, vec![batch.clone(), channels.clone(), height.clone(), width.clone()])
            }
            [Dim::Fixed(own), Dim::Fixed(1), height, width] if *own > 1 && Some(*own) == channels => {
                (Self::SingleFrame, vec![Dim::Fixed(1), Dim::Fixed(*own), height.clone(), width.clone()])
            }
            declared => (Self::Batched, declared.to_vec()),
        }
    }

    /// The axes of `batch` samples of a shape.
    pub(crate) fn axes(self, batch: usize, sample: &[usize]) -> Vec<usize> {
        match (self, sample) {
            (Self::Frame, [channels, height, width]) => vec![batch, *channels, 1, *height, *width],
            (Self::SingleFrame, [channels, height, width]) => vec![*channels, 1, *height, *width],
            (_, sample) => [&[batch], sample].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(declared: &[Option<usize>], channels: Option<usize>) -> (SampleLayout, Vec<Option<usize>>) {
        let declared: Vec<_> =
            declared.iter().map(|length| length.map_or(Dim::Dynamic, Dim::Fixed)).collect();
        let (layout, axes) = SampleLayout::split(&declared, channels);
        (layout, axes.iter().map(Dim::length).collect())
    }

    #[test]
    fn a_frame_axis_is_known_by_its_place() {
        let picture = vec![Some(1), Some(16), None, None];
        assert_eq!(
            split(&[Some(1), Some(16), None, None], Some(16)),
            (SampleLayout::Batched, picture.clone())
        );
        assert_eq!(
            split(&[Some(1), Some(16), Some(1), None, None], None),
            (SampleLayout::Frame, picture.clone())
        );
        assert_eq!(split(&[Some(16), Some(1), None, None], Some(16)), (SampleLayout::SingleFrame, picture));
        // A batch of 16 grey pictures.
        let grey = vec![Some(16), Some(1), None, None];
        assert_eq!(split(&grey, Some(1)), (SampleLayout::Batched, grey.clone()));
    }

    #[test]
    fn samples_are_given_in_the_axes_of_the_graph() {
        let sample = [16, 8, 12];
        assert_eq!(SampleLayout::Batched.axes(2, &sample), [2, 16, 8, 12]);
        assert_eq!(SampleLayout::Frame.axes(2, &sample), [2, 16, 1, 8, 12]);
        assert_eq!(SampleLayout::SingleFrame.axes(1, &sample), [16, 1, 8, 12]);
        assert_eq!(SampleLayout::Batched.axes(1, &[64, 16]), [1, 64, 16]);
    }
}
