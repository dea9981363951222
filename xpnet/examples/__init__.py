"""Worked examples: each is a page, runs as `python -m xpnet.examples.NAME` and says which number to expect.

functional_loop: the network as functions on a dict; 30,000 updates on random data, the loss on a logarithmic axis.
circles_and_blobs: what a network without a hidden layer cannot learn, and a small one that stops at its target.
digits_sgd: handwritten digits with sigmoids, the quadratic cost and plain gradient descent, counted epoch by epoch.
layer_list: a classifier and a regression on ten rows, each made of a list of layer dicts.
mnist_relu: 784-100-200-10 with relu and softmax, 98% on MNIST.
cpu_or_gpu: the same network on both devices, times side by side.
custom_activation: your own function in a network, its derivative checked.

Each takes `--short` for a quick look, with its own number to expect.
"""
