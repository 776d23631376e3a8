//! The names of a network's layers in files: as diffusers builds the network, and as the original code of Stable Diffusion
//! does, whose names Kohya's scripts use for SDXL.

use super::key::flat;

/// The residual layers of each block of a U-Net. A block's samplers come after them.
pub(super) fn layers_per_block<'a>(modules: impl Iterator<Item = &'a str>) -> usize {
    let index = |module: &str| {
        let mut parts = module.strip_prefix("down_blocks.")?.split('.').skip(1);
        let list = parts.next()?;
        ["resnets", "attentions"].contains(&list).then(|| parts.next()?.parse::<usize>().ok())?
    };
    modules.filter_map(index).max().map_or(0, |largest| largest + 1)
}

/// The names of a layer, given as diffusers writes it (`down_blocks.1.attentions.0.proj_in`): that name with `_` for `.`, and
/// the one of the original code if it has one.
pub(super) fn names(module: &str, layers_per_block: usize) -> (String, Option<String>) {
    (flat(module), original(module, layers_per_block))
}

fn original(module: &str, layers: usize) -> Option<String> {
    if let Some((_, name)) = OUTSIDE_OF_BLOCKS.iter().find(|(own, _)| *own == module) {
        return Some((*name).to_owned());
    }
    let parts: Vec<&str> = module.split('.').collect();
    let number = |text: &str| text.parse::<usize>().ok();
    let (place, rest) = match parts[..] {
        ["mid_block", list, index, ..] => {
            let place = if list == "resnets" { 2 * number(index)? } else { 1 };
            (format!("middle_block_{place}"), 3)
        }
        ["down_blocks", block, "downsamplers", ..] => {
            return Some(format!("input_blocks_{}_0_op", (number(block)? + 1) * (layers + 1)));
        }
        ["down_blocks", block, list, index, ..] => {
            let place = 1 + number(block)? * (layers + 1) + number(index)?;
            (format!("input_blocks_{place}_{}", u8::from(list == "attentions")), 4)
        }
        // After the resnet, and after the attention where the block has one.
        ["up_blocks", block, "upsamplers", ..] => {
            return Some(format!("output_blocks_{}_2_conv", number(block)? * (layers + 1) + layers));
        }
        ["up_blocks", block, list, index, ..] => {
            let place = number(block)? * (layers + 1) + number(index)?;
            (format!("output_blocks_{place}_{}", u8::from(list == "attentions")), 4)
        }
        _ => return None,
    };
    let layer = parts[rest..].join(".");
    let layer = RESIDUAL.iter().find(|(own, _)| *own == layer).map_or(layer.as_str(), |(_, name)| name);
    Some(format!("{place}_{}", layer.replace('.', "_")))
}

/// Layers of a residual block.
const RESIDUAL: [(&str, &str); 4] = [
    ("conv1", "in_layers.2"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
];

const OUTSIDE_OF_BLOCKS: [(&str, &str); 6] = [
    ("conv_in", "input_blocks_0_0"),
    ("conv_out", "out_2"),
    ("time_embedding.linear_1", "time_embed_0"),
    ("time_embedding.linear_2", "time_embed_2"),
    ("add_embedding.linear_1", "label_emb_0_0"),
    ("add_embedding.linear_2", "label_emb_0_2"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_as_many_layers_as_their_largest_index() {
        let modules = [
            "down_blocks.0.resnets.1.conv1",
            "down_blocks.1.attentions.0.proj_in",
            "up_blocks.0.resnets.2.conv1",
        ];
        assert_eq!(layers_per_block(modules.into_iter()), 2);
        assert_eq!(layers_per_block(["encoder.layers.3.mlp.fc1"].into_iter()), 0);
    }

    #[test]
    fn sdxl_has_the_names_of_the_original_code() {
        let name = |module: &str| names(module, 2).1.unwrap();
        let q = "transformer_blocks.0.attn1.to_q";
        let found = |block: &str| name(&format!("{block}.attentions.0.{q}"));
        assert_eq!(found("down_blocks.1"), "input_blocks_4_1_transformer_blocks_0_attn1_to_q");
        assert_eq!(found("mid_block"), "middle_block_1_transformer_blocks_0_attn1_to_q");
        assert_eq!(found("up_blocks.0"), "output_blocks_0_1_transformer_blocks_0_attn1_to_q");
        assert_eq!(name("mid_block.resnets.1.conv1"), "middle_block_2_in_layers_2");
        assert_eq!(name("up_blocks.1.resnets.2.conv_shortcut"), "output_blocks_5_0_skip_connection");
        assert_eq!(name("down_blocks.0.downsamplers.0.conv"), "input_blocks_3_0_op");
        assert_eq!(name("up_blocks.0.upsamplers.0.conv"), "output_blocks_2_2_conv");
        assert_eq!(name("time_embedding.linear_2"), "time_embed_2");
        assert_eq!(names("encoder.layers.0.mlp.fc1", 0), ("encoder_layers_0_mlp_fc1".to_owned(), None));
    }
}
