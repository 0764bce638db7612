//! What survives a restart: the durable log, user sequences, entities and the model registry.
