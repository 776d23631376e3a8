//! Inputs that a graph takes by its description, and an output to compute from them.

use crate::bundle::{AutoencoderIo, Signature, TextEncoderIo};
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
