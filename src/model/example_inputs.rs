//! Inputs that a graph takes by its description, and an output to compute from them.

use crate::bundle::{AutoencoderIo, ControlNetIo, Signature, TextEncoderIo, TimestepShape};
use crate::inference::{ExampleInputs, InputShapes};

/// The height and width where an autoencoder takes any.
const SIDE: usize = 16;

/// The smallest batch of a denoiser.
pub(super) fn of_denoiser(signature: &Signature) -> ExampleInputs {
    let shapes = InputShapes(signature.input_shapes(signature.smallest_batch()));
    ExampleInputs { shapes, output: signature.output.clone() }
}

/// One prompt. `usual_length` is the number of tokens if the graph takes any.
pub(super) fn of_text_encoder(io: &TextEncoderIo, usual_length: usize) -> ExampleInputs {
    let shape = vec![io.batch, io.length.unwrap_or(usual_length)];
    let optional = [&io.mask, &io.positions, &io.token_types].into_iter().flatten();
    let inputs = std::iter::once(&io.ids).chain(optional);
    let output = [&io.last, &io.pooled].into_iter().flatten().chain(&io.hidden).next();
    let live = io.live.idle_shapes().map(|(name, own)| (name.to_owned(), own));
    ExampleInputs {
        shapes: InputShapes(inputs.map(|name| (name.clone(), shape.clone())).chain(live).collect()),
        output: output.cloned().unwrap_or_default(),
    }
}

/// One sample. `channels` are those of its input.
pub(super) fn of_autoencoder(io: &AutoencoderIo, channels: usize) -> ExampleInputs {
    let [height, width] = io.size.map(|length| length.unwrap_or(SIDE));
    let shape = vec![io.batch, channels, height, width];
    ExampleInputs { shapes: InputShapes(vec![(io.input.clone(), shape)]), output: io.output.clone() }
}

/// A sample of the usual size for each row of the smallest batch. One value of a latent stands for `factor` × `factor` pixels.
pub(super) fn of_control_net(io: &ControlNetIo, signature: &Signature, factor: usize) -> ExampleInputs {
    let batch = io.fixed_batch.unwrap_or(1);
    let per_row = |shape: &[usize]| [&[batch], shape].concat();
    let sample = &signature.sample_shape;
    let picture = [0, 1].map(|axis| io.size[axis].unwrap_or(sample[axis + 1] * factor));
    let time = match io.time_shape {
        TimestepShape::PerSample => vec![batch],
        TimestepShape::Single => vec![1],
        TimestepShape::Scalar => Vec::new(),
    };
    let tensors = io
        .tensors
        .iter()
        .map(|(name, index)| (name.clone(), per_row(&signature.tensors[*index].usual_shape(sample))));
    let scale = io.scale.iter().map(|(name, _)| (name.clone(), io.scale_shape(batch)));
    let shapes = [
        (io.sample.clone(), per_row(sample)),
        (io.time.clone(), time),
        (io.picture.clone(), per_row(&[3, picture[0], picture[1]])),
    ];
    ExampleInputs {
        shapes: InputShapes(shapes.into_iter().chain(scale).chain(tensors).collect()),
        output: io.residuals[0].clone(),
    }
}
