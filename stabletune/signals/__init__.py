"""What can be read off a training step: pure functions of gradients, second moments and Hessian products."""
