//! T0: what any tree of ours must look like.
