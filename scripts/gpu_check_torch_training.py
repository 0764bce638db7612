"""PyTorch's training steps for the case that `gpu_check training-export` wrote. NOT YET RUN ON A CARD.

    python gpu_check_torch_training.py --case training.safetensors --json torch_training.json [--seconds 2] [--until 100]

Weights, batches, loss (binary cross-entropy weighted by row and head) and Adam are those of the case, products in bfloat16 by
autocast. First the loss and the gradient's length of the first batch in f32 are held against the case's; then the case's steps
are run for their losses; then steps of full histories and random numbers are timed: a dense batch, a history a row, inputs on
the card already, fused Adam. Forms: eager; torch.compile; torch.compile with CUDA graphs of its parts; and of both the whole
step as one graph. `--until`: seconds after which no further form is begun. What is measured is written after every form.
--device cpu proves the script where there is no card: small steps, no graphs.
"""
import argparse
import functools
import json
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open

sys.dont_write_bytecode = True
from gpu_check_torch import ceilings, rank  # beside this file

SIZES = {"cuda": (2048, 12000), "cpu": (20, 40)}
INPUTS = 4
WARM_UP = 10
DROPOUT = 0.1


class Transact(nn.Module):
    """Tokens [action ; item ; candidate] to [Linear(max) ; first tokens]."""

    def __init__(self, weight, layers, first, dropout):
        super().__init__()
        actions, width = weight["transact.action.weight"].shape
        d = len(weight["transact.pool.bias"])
        ffn = len(weight["transact.encoder.layers.0.linear1.bias"])
        self.first = first
        self.action = nn.Embedding(actions, width)
        layer = nn.TransformerEncoderLayer(d, 1, ffn, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.pool = nn.Linear(d, d)

    def forward(self, action, item, candidate, padding):
        x = [self.action(action), item, candidate[:, None, :].expand(-1, item.shape[1], -1)]
        h = self.encoder(torch.cat(x, -1), src_key_padding_mask=padding)
        if padding is None:
            return torch.cat([self.pool(h.max(1).values), h[:, : self.first].flatten(1)], 1)
        gone = padding[..., None]
        first = h[:, : self.first].masked_fill(gone[:, : self.first], 0.0)
        return torch.cat([self.pool(h.masked_fill(gone, float("-inf")).max(1).values), first.flatten(1)], 1)


class Model(nn.Module):
    """From a dense batch to its loss."""

    def __init__(self, weight, tables, first, dropout):
        super().__init__()
        count = lambda name: sum(key.startswith(name) and key.endswith(".bias") for key in weight)
        of = lambda name: nn.Linear(*reversed(weight[f"{name}.weight"].shape))
        layers = sum(key.startswith("transact.encoder") and key.endswith("linear1.bias") for key in weight)
        self.transact = Transact(weight, layers, first, dropout)
        self.tables = nn.ModuleList(nn.Embedding(*weight[name].shape) for name in tables)
        self.cross = nn.ModuleList(of(f"cross.{i}") for i in range(count("cross.")))
        self.mlp = nn.ModuleList(of(f"mlp.{i}") for i in range(count("mlp.")))
        self.heads = of("heads")
        self.dropout = nn.Dropout(dropout)
        named = {f"tables.{i}.weight": weight[name] for i, name in enumerate(tables)}
        self.load_state_dict({k: v for k, v in weight.items() if k not in tables} | named)

    def forward(self, action, item, candidate, padding, before, indices, after, label, weight):
        tables = [table(indices[:, i]) for i, table in enumerate(self.tables)]
        x0 = torch.cat([self.transact(action, item, candidate, padding), before, *tables, after], 1)
        x = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        for layer in self.mlp:
            x = self.dropout(F.relu(layer(x)))
        logits = self.heads(x)
        return F.binary_cross_entropy_with_logits(logits.float(), label, weight, reduction="sum")


def of_case(case, i, tokens, device):
    """A batch of the case, its histories padded."""
    of = lambda name: case[f"batch.{i}.{name}"]
    length = of("length")
    padding = torch.arange(tokens)[None, :] >= length[:, None]
    action = torch.zeros(padding.shape, dtype=torch.int64)
    action[~padding] = of("action")
    item = torch.zeros(*padding.shape, of("item").shape[1])
    item[~padding] = of("item")
    rows = of("request")
    indices = [v for k, v in sorted(case.items()) if k.startswith(f"batch.{i}.table.")]
    batch = [action[rows], item[rows], of("candidate"), padding[rows], of("before"), torch.stack(indices, 1), of("after"),
             of("label"), of("weight")]
    return [t.to(device) for t in batch]


def at_random(like, rows, tokens, seed, device):
    """A batch of full histories in the case's widths."""
    g = torch.Generator(device).manual_seed(seed)
    real = lambda *shape: torch.rand(*shape, generator=g, device=device) - 0.5
    whole = lambda most, *shape: torch.randint(0, most, shape, generator=g, device=device)
    action, item, candidate, _, before, indices, after, label, _ = like
    indices = torch.stack([whole(int(column.max()) + 1, rows) for column in indices.T], 1)
    heads = label.shape[1]
    return [whole(int(action.max()) + 1, rows, tokens), real(rows, tokens, item.shape[2]), real(rows, candidate.shape[1]), None,
            real(rows, before.shape[1]), indices, real(rows, after.shape[1]), whole(2, rows, heads).float(),
            torch.full((rows, heads), 1 / (rows * heads), device=device)]


def adam(model, case, **more):
    fused = next(model.parameters()).is_cuda
    betas = (float(case["beta1"]), float(case["beta2"]))
    return torch.optim.Adam(model.parameters(), lr=float(case["rate"]), betas=betas, fused=fused, **more)


def loss_and_length(model, batch, device, bf16):
    """Of one batch, and its gradient."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        loss = model(*batch)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
    return loss.item(), gradient.norm().item(), gradient


def finite(x):
    """JSON has no number for what is none."""
    return x if math.isfinite(x) else None


def curve(model, info, batches, device):
    optimiser, losses = adam(model, info), []
    for number in range(int(info["steps"])):
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = model(*batches[number % len(batches)])
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [finite(x.item()) for x in losses]


def plain(run, optimiser, batches, device):
    """A step that PyTorch launches kernel by kernel, or graph by graph."""

    def step(i):
        torch.compiler.cudagraph_mark_step_begin()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = run(*batches[i % INPUTS])
        loss.backward()
        optimiser.step()

    return step


def as_one_graph(run, optimiser, batches, device):
    """A step played as one graph, one for each of the batches, so that no inputs are copied."""
    step = plain(run, optimiser, batches, device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(INPUTS):
            step(i)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graphs, pool = [], None
    for i in range(INPUTS):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            step(i)
        pool = graph.pool()
        graphs.append(graph)
    return lambda i: graphs[i % INPUTS].replay()


def forms(model, info, batches, device):
    """(name, what makes the step)."""
    compiled = functools.partial(torch.compile, model, dynamic=False)
    capturable = lambda: adam(model, info, capturable=True)
    yield "eager", lambda: plain(model, adam(model, info), batches, device)
    yield "compile", lambda: plain(compiled(), adam(model, info), batches, device)
    if device == "cuda":
        yield "compile, one graph", lambda: as_one_graph(compiled(), capturable(), batches, device)
        yield "compile, graphs", lambda: plain(compiled(mode="reduce-overhead"), adam(model, info), batches, device)
        yield "eager, one graph", lambda: as_one_graph(model, capturable(), batches, device)


def measure(step, seconds, device):
    """Times from the end of a step to the end of the next, ms, sorted: by events on a card, whose host runs ahead."""
    for i in range(WARM_UP if device == "cuda" else 2):
        step(i)
    if device == "cuda":
        torch.cuda.synchronize()
    ends, start, i = [], time.perf_counter(), 0
    while time.perf_counter() - start < seconds or len(ends) < 2 * INPUTS:
        step(i)
        if device == "cuda":
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            ends.append(end)
            if i >= 2 * INPUTS:
                ends[i - 2 * INPUTS].synchronize()  # not further ahead than some steps
        else:
            ends.append(time.perf_counter())
        i += 1
    if device == "cuda":
        torch.cuda.synchronize()
        return sorted(a.elapsed_time(b) for a, b in zip(ends, ends[1:]))
    return sorted((b - a) * 1e3 for a, b in zip(ends, ends[1:]))


def main():
    begin = time.perf_counter()
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--case", required=True)
    p.add_argument("--json", required=True)
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument("--until", type=float, default=float("inf"))
    p.add_argument("--device", choices=SIZES, default="cuda")
    a = p.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check_torch_training: this torch sees no card")
    with safe_open(a.case, "pt") as file:
        info = file.metadata()
        case = {name: file.get_tensor(name) for name in file.keys()}
    weight = {k.removeprefix("weight."): v for k, v in case.items() if k.startswith("weight.")}
    tokens = int(info["tokens"])
    fresh = lambda dropout: Model(weight, info["tables"].split(","), int(info["first"]), dropout).to(a.device).train()
    batches = [of_case(case, i, tokens, a.device) for i in range(int(info["batches"]))]

    torch.set_float32_matmul_precision("highest")  # no TF32 where the model is proven to be the same
    loss, norm, exact = loss_and_length(fresh(0.0), batches[0], a.device, False)
    error_loss, error_norm = abs(loss / case["loss"].item() - 1), abs(norm / case["norm"].item() - 1)
    if not max(error_loss, error_norm) < 1e-3:
        sys.exit(f"gpu_check_torch_training: in f32 the loss differs by {error_loss:.1e} and the gradient's length by "
                 f"{error_norm:.1e}: this is not the same model")
    _, _, rounded = loss_and_length(fresh(0.0), batches[0], a.device, True)
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "error_loss": error_loss, "error_norm": error_norm,
              "gradient_bf16": finite(((rounded - exact).norm() / exact.norm()).item()), "curve": [], "forms": [], "missing": {}}
    del exact, rounded
    torch.set_float32_matmul_precision("high")  # what is left in f32 may be rounded

    def keep():
        with open(a.json, "w") as out:
            json.dump(result, out, indent=1, allow_nan=False)
            out.write("\n")

    keep()
    try:
        if a.device == "cuda":
            result["copy_gb_s"], result["bf16_tflop_s"] = ceilings()
    except Exception as error:  # the times are measured all the same
        result["missing"]["the card's ceilings"] = str(error)[:500]
    try:
        result["curve"] = curve(fresh(0.0), info, batches, a.device)
    except Exception as error:
        result["missing"]["its losses"] = str(error)[:500]
    keep()
    for rows in SIZES[a.device]:
        inputs = [at_random(batches[0], rows, tokens, seed, a.device) for seed in range(INPUTS)]
        torch._dynamo.reset()
        model = fresh(DROPOUT)
        for name, make in forms(model, info, inputs, a.device):
            if time.perf_counter() - begin > a.until:
                result["missing"][f"{name}, {rows}"] = "no time is left"
                keep()
                continue
            try:
                times = measure(make(), a.seconds, a.device)
                result["forms"].append({"name": name, "rows": rows, "p10_ms": rank(times, 10), "p50_ms": rank(times, 50),
                                        "p90_ms": rank(times, 90), "steps": len(times)})
                print(f"  {name}, {rows} rows: {rank(times, 50):.3f} ms", flush=True)
            except Exception as error:  # a form that this machine lacks (a compiler, say) is named, and the others are measured
                result["missing"][f"{name}, {rows}"] = str(error)[:500]
                print(f"{name} of {rows} rows IS NOT MEASURED: {error}", file=sys.stderr)
            model.zero_grad(set_to_none=True)
            keep()


if __name__ == "__main__":
    main()
