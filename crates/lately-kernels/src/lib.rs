//! Fused CPU operations over slices, forward and backward, each with a scalar reference.
