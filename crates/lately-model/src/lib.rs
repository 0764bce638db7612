//! The one definition of the ranking model: configuration, parameters, forward, backward, loss, checkpoint.
