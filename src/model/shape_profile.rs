//! The shapes for which TensorRT builds an engine of a denoiser.

use super::ModelError;
use crate::bundle::{Bundle, Signature, unet_blocks};
use crate::inference::{EngineOptions, InputShapes, ShapeProfile};

/// The rank of one LoRA, for which an engine is tuned.
const USUAL_RANK: usize = 16;

/// What live inputs may hold.
struct LiveRange {
    /// The height and width of each residual, if there are ControlNets.
    residuals: Option<Vec<[usize; 2]>>,
    /// The largest sum of the ranks of a sample's LoRAs.
    rank: usize,
}

/// Returns the batch sizes for which an engine is built, and the shapes of live inputs.
///
/// These reach from idle shapes to full residuals and the largest rank, so that no LoRA and no ControlNet needs another
/// engine. An engine with one captured shape (`cuda_graph = true`) is built for idle shapes alone.
pub(super) fn shape_profile(
    bundle: &Bundle,
    signature: &Signature,
    options: &EngineOptions,
) -> Result<ShapeProfile, ModelError> {
    let tensorrt = &options.provider.tensorrt;
    let batches = [tensorrt.min_batch, tensorrt.opt_batch].map(|batch| batch.map(|n| n.0 as usize));
    if tensorrt.cuda_graph || signature.live.is_empty() {
        return Ok(profile(signature, batches, None));
    }
    let residuals = match &signature.sample_shape[..] {
        [_, height, width] if !bundle.controlnets.is_empty() => {
            residual_sizes(signature.live.residuals.len(), unet_blocks(&bundle.graph)?, [*height, *width])
        }
        _ => None,
    };
    Ok(profile(signature, batches, Some(&LiveRange { residuals, rank: options.loras.max_rank })))
}

fn profile(signature: &Signature, batches: [Option<usize>; 2], live: Option<&LiveRange>) -> ShapeProfile {
    let (min, max) = (signature.smallest_batch(), signature.largest_batch);
    let [low, usual] = batches;
    let (low, usual) = (low.map_or(min, |n| n.clamp(min, max)), usual.map_or(max, |n| n.clamp(min, max)));
    let idle = |batch: usize| InputShapes(signature.input_shapes(batch));
    let active = |batch: usize, rank: usize| {
        let mut shapes = idle(batch);
        if let Some(LiveRange { residuals, rank: largest }) = live {
            let active = signature.live.active_shapes(batch, residuals.as_deref(), rank.min(*largest));
            shapes.0.truncate(shapes.0.len() - active.len());
            shapes.0.extend(active);
        }
        shapes
    };
    ShapeProfile { min: idle(low), opt: active(usual, USUAL_RANK), max: active(max, usize::MAX) }
}

/// Returns the height and width of each residual of a U-Net with this number of blocks.
///
/// Each block has the same number of skip connections. Those of the first block have the sample's size, and those of each
/// later block half the size of the block before. The last residual is the middle's. Returns `None` if the skip connections
/// cannot be divided equally among the blocks.
fn residual_sizes(residuals: usize, blocks: usize, sample: [usize; 2]) -> Option<Vec<[usize; 2]>> {
    let connections = residuals.checked_sub(1)?;
    let each = connections.checked_div(blocks).filter(|each| each * blocks == connections && *each > 0)?;
    let block = (0..connections).map(|position| position / each).chain([blocks - 1]);
    Some(block.map(|block| sample.map(|side| side.div_ceil(1 << block))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{
        LiveInputs, LoraInput, ResidualInput, Role, SampleLayout, TensorInput, TimeConvention, TimeInput,
        TimestepShape,
    };
    use crate::lora::AdaptedLayer;
    use crate::tensor::{DataType, Dim, GraphIo};

    fn signature(live: LiveInputs) -> Signature {
        let tensor = |name: &str, role, shape: &[Dim]| TensorInput {
            name: name.to_owned(),
            role,
            shape: shape.to_vec(),
            is_shared: role == Role::TextIds,
        };
        Signature {
            sample: "sample".to_owned(),
            sample_shape: vec![4, 8, 8],
            layout: SampleLayout::Batched,
            graph: GraphIo::default(),
            sample_element: DataType::F32,
            fixed_batch: None,
            largest_batch: 4,
            time: TimeInput {
                name: "timestep".to_owned(),
                element: DataType::I64,
                shape: TimestepShape::PerSample,
                convention: TimeConvention::Step,
            },
            class: None,
            conditions: vec![("strength".to_owned(), DataType::F32)],
            tensors: vec![
                tensor("encoder_hidden_states", Role::Text, &[Dim::Dynamic, Dim::Fixed(32)]),
                tensor("txt_ids", Role::TextIds, &[Dim::Dynamic, Dim::Fixed(3)]),
            ],
            dynamic_size: true,
            extra_channels: 5,
            live,
            output: "out_sample".to_owned(),
            negates_output: false,
            named_kind: None,
        }
    }

    fn written(profile: &ShapeProfile) -> [String; 3] {
        [&profile.min, &profile.opt, &profile.max].map(ToString::to_string)
    }

    #[test]
    fn a_shape_profile_has_every_input() {
        let found = profile(&signature(LiveInputs::default()), [Some(2), None], None);
        let expected = |batch: usize| {
            format!(
                "sample:{batch}x9x8x8,timestep:{batch},strength:{batch},encoder_hidden_states:{batch}x77x32,\
                 txt_ids:77x3"
            )
        };
        assert_eq!(written(&found), [2, 4, 4].map(expected));
    }

    #[test]
    fn one_engine_serves_idle_and_full_live_inputs() {
        let residual =
            |name: &str| ResidualInput { name: name.to_owned(), axes: [None, Some(7), None, None] };
        let layer = AdaptedLayer { module: "x".to_owned(), inputs: 3, outputs: 5 };
        let lora = LoraInput { a: "lora_a.x".to_owned(), b: "lora_b.x".to_owned(), layer };
        let live = LiveInputs {
            residuals: vec![residual("r0"), residual("r1"), residual("mid")],
            layers: vec![lora],
        };
        let range = LiveRange { residuals: residual_sizes(3, 2, [8, 6]), rank: 32 };
        let found = written(&profile(&signature(live), [None, Some(2)], Some(&range)));
        let live = found.map(|shapes| shapes.split_once(",r0:").unwrap().1.to_owned());
        assert_eq!(live[0], "1x7x1x1,r1:1x7x1x1,mid:1x7x1x1,lora_a.x:1x3x1,lora_b.x:1x1x5");
        assert_eq!(live[1], "2x7x8x6,r1:2x7x4x3,mid:2x7x4x3,lora_a.x:2x3x16,lora_b.x:2x16x5");
        assert_eq!(live[2], "4x7x8x6,r1:4x7x4x3,mid:4x7x4x3,lora_a.x:4x3x32,lora_b.x:4x32x5");
    }

    #[test]
    fn residuals_of_stable_diffusion_and_xl_have_these_sizes() {
        let heights = |count: usize, blocks: usize, side: usize| {
            let sizes = residual_sizes(count, blocks, [side; 2])?;
            Some(sizes.iter().map(|[height, _]| *height).collect::<Vec<_>>())
        };
        assert_eq!(heights(13, 4, 64).unwrap(), [64, 64, 64, 32, 32, 32, 16, 16, 16, 8, 8, 8, 8]);
        assert_eq!(heights(10, 3, 128).unwrap(), [128, 128, 128, 64, 64, 64, 32, 32, 32, 32]);
        assert_eq!(heights(12, 4, 64), None);
        assert_eq!(heights(0, 4, 64), None);
    }
}
