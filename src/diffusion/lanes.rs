//! Loops over many numbers with the widest vectors that the processor has.

/// Run a loop compiled for this processor's own vectors. The closure and what it calls must be inlined,
/// `#[inline(always)]`, or they are compiled for the least of all processors; and it must own its slices
/// (`move`) and cut them to one length, or they are read from memory again, or checked, at every number.
///
/// The compiler contracts no multiplication with an addition and reorders no sum by itself, so that the bits
/// are the same everywhere.
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
