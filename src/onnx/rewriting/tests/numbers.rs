//! Random small attention blocks compute the same numbers before and after.

use proptest::prelude::*;
use rten_onnx::onnx::DataType;

use super::blocks::{Attention, Layout, MaskAxes, Scale, Transposition};
use super::onnx_runtime::{Shapes, first_output};
use crate::onnx::rewriting::attention::AttentionCount;
use crate::onnx::rewriting::{AttentionTarget, fold_shapes, fuse_attention};

fn attention() -> impl Strategy<Value = Attention> {
    let layout = prop_oneof![Just(Layout::Projections), Just(Layout::Heads), Just(Layout::Batched)];
    let factor = 0.05..2.0_f64;
    let scale = prop_oneof![
        Just(Scale::None),
        Just(Scale::Roots),
        factor.clone().prop_map(Scale::Queries),
        factor.clone().prop_map(Scale::Scores),
        factor.prop_map(Scale::Divided),
    ];
    let axes = any::<[bool; 3]>().prop_map(|[batch, heads, rows]| MaskAxes { batch, heads, rows });
    let transposition =
        prop_oneof![Just(Transposition::Once), Just(Transposition::Twice), Just(Transposition::WithoutHeads)];
    let form = (layout, scale, proptest::option::of(axes), any::<[bool; 2]>(), transposition);
    (form, [1..4_usize, 1..5, 1..10, 1..10], [1..9_usize, 1..9]).prop_map(|(form, sizes, columns)| {
        let (layout, scale, mask, [casts, dynamic], transposition) = form;
        let [batch, heads, rows, keys] = sizes;
        let [columns, value_columns] = columns;
        Attention {
            layout,
            scale,
            mask,
            transposition,
            casts,
            dynamic,
            batch,
            heads,
            rows,
            keys,
            columns,
            value_columns,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rewriting_keeps_the_numbers(attention in attention(), broadcasts_masks: bool) {
        let target = AttentionTarget { float16: false, broadcasts_masks };
        let (model, shapes) = attention.build(DataType::FLOAT);
        let shapes: Shapes = shapes.into_iter().collect();
        let expected = first_output(&model, &shapes);
        for folded in [false, true] {
            let (mut model, _) = attention.build(DataType::FLOAT);
            if folded {
                fold_shapes(&mut model, &shapes);
            }
            prop_assert_eq!(fuse_attention(&mut model, target), AttentionCount { fused: 1, left: 0 });
            let (shape, values) = first_output(&model, &shapes);
            prop_assert_eq!(&shape, &expected.0);
            for (own, expected) in values.iter().zip(&expected.1) {
                prop_assert!((own - expected).abs() < 1e-5, "{} instead of {}", own, expected);
            }
        }
    }
}
