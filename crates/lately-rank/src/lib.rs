//! The request path in process: hydrate, assemble, score, select, log what was served.
