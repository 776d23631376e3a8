#!/usr/bin/env python3
"""Answers on a GPU what the design of CUDA graphs (docs/adr/0024) assumes of ONNX Runtime.

    python3 benches/gpu_probe.py FOLDER [SECTION …]

FOLDER is a Stable Diffusion 1.5 in float16 as optimum exports it. Needs onnxruntime-gpu 1.23 or newer, onnx and pynvml, and takes
about a minute. Writes `fused.onnx`, with attention as MultiHeadAttention, beside the exported network and decoder.
"""
import gc, glob, os, sys, threading, time

import numpy as np, onnx, onnxruntime as ort, pynvml

pynvml.nvmlInit()
GPU = pynvml.nvmlDeviceGetHandleByIndex(0)
FOLDER, SECTIONS = sys.argv[1], sys.argv[2:]
NETWORK, DECODER = (f"{FOLDER}/{role}/fused.onnx" for role in ("unet", "vae_decoder"))
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What [engine.cuda] sets by default.
OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "0",
           "arena_extend_strategy": "kSameAsRequested", "sdpa_kernel": "19"}
CAPTURE = {"enable_cuda_graph": "1"}
TYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def used():
    return pynvml.nvmlDeviceGetMemoryInfo(GPU).used / 1e9


def fuse(path, heads):
    """Writes a graph whose attention in the pattern of today's exporter is replaced, without what nothing uses then."""
    model = onnx.load(path.replace("fused", "model"), load_external_data=False)
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    user_of = {name: node for node in reversed(graph.node) for name in node.input}

    def projection(name):
        while (node := made_by.get(name)) is not None and node.op_type != "Reshape":
            name = node.input[0]
        return node.input[0]

    def after(node):
        while (node := user_of[node.output[0]]).op_type == "Cast":
            pass
        return node

    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        scores, weighted = made_by[softmax.input[0]], after(softmax)
        joined = after(after(weighted))
        inputs = [projection(name) for name in (*scores.input, weighted.input[1])]
        node = onnx.helper.make_node("MultiHeadAttention", inputs, joined.output, domain="com.microsoft", num_heads=heads)
        graph.node.insert(list(graph.node).index(joined), node)
        graph.node.remove(joined)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    unused = True
    while unused:
        needed = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not needed & set(node.output)]
        for node in unused:
            graph.node.remove(node)
    del graph.value_info[:]
    onnx.save(model, path)


def session(path, fixed=(), **options):
    settings = ort.SessionOptions()
    settings.log_severity_level = 2  # Warnings count the Memcpy nodes.
    for axis, length in dict(fixed).items():
        settings.add_free_dimension_override_by_name(axis, length)
    start, providers = time.time(), [("CUDAExecutionProvider", {**OPTIONS, **options})]
    opened = ort.InferenceSession(path, settings, providers=providers)
    print(f"    opened in {time.time() - start:.2f} s, {used():.2f} GB of GPU memory", flush=True)
    return opened


class Bound:
    """Fixed buffers on the GPU for inputs of some lengths. `graph` is the number of the CUDA graph."""

    def __init__(self, opened, lengths, outputs, graph, rows=None):
        self.session, self.binding, self.options = opened, opened.io_binding(), ort.RunOptions()
        self.options.add_run_config_entry("gpu_graph_id", str(graph))
        for value in opened.get_inputs():
            shape = [lengths.get(axis, axis) for axis in value.shape]
            data = np.random.default_rng(1).standard_normal([rows or shape[0], *shape[1:]] if shape else [])
            data = np.asarray(data[: shape[0]] if shape else 500).astype(TYPES[value.type])
            self.binding.bind_ortvalue_input(value.name, ort.OrtValue.ortvalue_from_numpy(data, "cuda", 0))
        value = opened.get_outputs()[0]
        self.output = ort.OrtValue.ortvalue_from_shape_and_type(outputs, TYPES[value.type], "cuda", 0)
        self.binding.bind_ortvalue_output(value.name, self.output)

    def run(self):
        self.session.run_with_iobinding(self.binding, self.options)
        return self.output.numpy()

    def times(self, what, count=6):
        times = []
        for _ in range(count):
            start = time.time()
            output = self.run()
            times.append(1e3 * (time.time() - start))
        print(f"    {what}: {', '.join(f'{ms:.1f}' for ms in times)} ms, {used():.2f} GB", flush=True)
        return output


def network(opened, batch, side, graph, rows=None):
    lengths = {"batch_size": batch, "height": side, "width": side, "sequence_length": 77}
    return Bound(opened, lengths, [batch, 4, side, side], graph, rows)


def graphs():
    opened = session(NETWORK, **CAPTURE)
    plain = network(opened, 2, 64, -1).times("batch 2, 512×512, without a graph")
    bound = network(opened, 2, 64, 1)
    captured, replayed = bound.run(), bound.times("batch 2, 512×512, graph 1")
    print("    without, captured and replayed are equal:", np.array_equal(plain, captured), np.array_equal(captured, replayed))
    alone = {}
    for graph, (batch, side) in enumerate([(1, 64), (2, 64), (4, 64), (8, 64), (2, 32), (2, 96), (1, 40)], 2):
        output = network(opened, batch, side, graph, 8).times(f"batch {batch}, {8 * side}×{8 * side}, graph {graph}", 4)
        alone.setdefault(batch, output[0].astype(np.float32))
    print("    row 0 alone and in batches of 2, 4, 8 differs by", [float(abs(alone[1] - alone[n]).max()) for n in (2, 4, 8)])
    network(opened, 3, 48, -1).times("batch 3, 384×384, without a graph", 3)
    print("    graph 1 is unchanged after the others:", np.array_equal(bound.run(), replayed))
    thread = threading.Thread(target=lambda: print("    equal in a thread:", np.array_equal(bound.times("thread"), replayed)))
    thread.start(), thread.join()
    del opened, bound
    gc.collect()
    print(f"    {used():.2f} GB after closing")
    opened = session(NETWORK, {"batch_size": 2, "height": 64, "width": 64, "sequence_length": 77}, **CAPTURE)
    network(opened, 2, 64, 0).times("fixed to batch 2, 512×512")


def decoder():
    for options in ({}, CAPTURE):
        opened = session(DECODER, **options)
        lengths = {axis: side for value in opened.get_inputs() for axis, side in zip(value.shape, (1, 4, 64, 64))}
        Bound(opened, lengths, [1, 3, 512, 512], 1).times(f"decoder {options}")


def accepted():
    folders = ("models/*/unet", "tests/golden/*/unet", "tests/golden/latent/bundles/*/*")
    paths = [path for folder in folders for path in sorted(glob.glob(f"{REPOSITORY}/{folder}/model.onnx"))]
    for path in [f"{FOLDER}/unet/model.onnx", *paths]:
        try:
            session(path, **CAPTURE)
            print("    accepted as exported:", path)
        except Exception as error:
            print("    refused as exported:", path, str(error)[:160].replace("\n", " "))


fuse(NETWORK, 8)
fuse(DECODER, 1)
for section in (graphs, decoder, accepted):
    if not SECTIONS or section.__name__ in SECTIONS:
        print(section.__name__, flush=True)
        try:
            section()
        except Exception as error:
            print("    failed:", str(error)[:600].replace("\n", " "))
