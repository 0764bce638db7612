"""PyTorch's times for the case that `gpu_check export` wrote, and the card's own ceilings. NOT YET RUN ON A CARD.

    python gpu_check_torch.py --reference DIR --case case.safetensors --json torch.json [--seconds 2] [--until 100]

DIR holds pinnability.py, the module in PyTorch. Weights, inputs and logits are those of the case. Forms, all in bfloat16:
eager, torch.compile, and torch.compile with CUDA graphs. The candidates rotate, so that no call finds the last one's in a
cache. Times by the host's clock are from inputs in page-locked memory to logits there; times by events are the module alone.
`--until`: seconds after which no further form is begun. What is measured is written after every form.
"""
import argparse
import json
import statistics
import sys
import time

import torch
from safetensors.torch import load_file

DEVICE = "cuda"
SIZES = (500, 2000)
INPUTS = 8
WARM_UP = 10


def rank(times, p):
    """Nearest rank of times that are sorted."""
    return times[max(1, -(-len(times) * p // 100)) - 1]


def by_events(run, seconds):
    """Median time of a call on the card, ms."""
    for i in range(WARM_UP):
        run(i)
    torch.cuda.synchronize()
    took, start, i = [], time.perf_counter(), 0
    while time.perf_counter() - start < seconds or len(took) < INPUTS:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run(i)
        end.record()
        end.synchronize()
        took.append(begin.elapsed_time(end))
        i += 1
    return statistics.median(took)


def by_clock(run, seconds):
    """Times of calls that end on the host, ms, sorted."""
    for i in range(WARM_UP):
        run(i)
    took, start, i = [], time.perf_counter(), 0
    while time.perf_counter() - start < seconds or len(took) < INPUTS:
        begin = time.perf_counter()
        run(i)
        took.append((time.perf_counter() - begin) * 1e3)
        i += 1
    return sorted(took)


def ceilings():
    """(bytes read and written by copies, GB/s; products of 8,192 x 8,192 matrices in bf16 of random numbers, TFLOP/s)."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device=DEVICE).random_(0, 255)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / by_events(lambda _: target.copy_(source), 1.0) / 1e6
    del source, target
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty(n, n, device=DEVICE, dtype=torch.bfloat16)
    return copy, 2 * n**3 / by_events(lambda _: torch.matmul(a, b, out=out), 1.0) / 1e9


def forms(model):
    """(name, function of the inputs)."""
    yield "eager", model
    yield "compile", torch.compile(model, dynamic=False)
    yield "compile, graphs", torch.compile(model, dynamic=False, mode="reduce-overhead")


def host_inputs(case, rows, dtype):
    """INPUTS requests of `rows` candidates, page-locked. The request's tokens stand there once, as a server sends them."""
    found = []
    for i in range(INPUTS):
        roll = lambda name: case["input." + name].roll(i * 17, 0)[:rows].to(dtype).contiguous().pin_memory()
        once = [case["input." + name] for name in ("action_type", "item", "action_time", "request_time")]
        once[1] = once[1].to(dtype)
        found.append([t.pin_memory() for t in once] + [roll("candidate"), roll("dense")])
    return found


def on_card(inputs, rows):
    """The same on the card, the request's part spread over its rows, as the module takes it."""
    moved = [t.to(DEVICE, non_blocking=True) for t in inputs]
    return [t.expand(rows, *t.shape[1:]).contiguous() for t in moved[:4]] + moved[4:]


def measure(name, run, case, rows, seconds):
    host = host_inputs(case, rows, torch.bfloat16)
    card = [on_card(x, rows) for x in host]
    with torch.inference_mode():
        device = by_events(lambda i: run(*card[i % INPUTS]), seconds)
        times = by_clock(lambda i: run(*on_card(host[i % INPUTS], rows)).float().cpu(), seconds)
        logits = run(*card[0]).float().cpu()
    want = case["logits"][:rows]
    error = ((logits - want).abs().max() / want.abs().max()).item()
    return {"name": name, "candidates": rows, "p50_ms": rank(times, 50), "p99_ms": rank(times, 99), "device_ms": device,
            "error": error, "requests": len(times)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--reference", required=True)
    p.add_argument("--case", required=True)
    p.add_argument("--json", required=True)
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument("--until", type=float, default=float("inf"))
    a = p.parse_args()
    begin = time.perf_counter()
    if not torch.cuda.is_available():
        sys.exit("gpu_check_torch: this torch sees no card")
    sys.path.insert(0, a.reference)
    from pinnability import Pinnability

    case = load_file(a.case)
    torch.set_float32_matmul_precision("highest")  # no TF32 where the weights are proven to be the same
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path changes padded outputs
    torch.set_default_device(DEVICE)  # the module makes its mask on the default device
    model = Pinnability().eval()
    model.load_state_dict({k.removeprefix("weight."): v for k, v in case.items() if k.startswith("weight.")})
    case = {k: v.cpu() for k, v in case.items()}

    rows = len(case["logits"])
    first = host_inputs(case, rows, torch.float32)[0]
    with torch.inference_mode():
        exact = model(*on_card(first, rows)).cpu()
    error = ((exact - case["logits"]).abs().max() / case["logits"].abs().max()).item()
    if not error < 1e-3:
        sys.exit(f"gpu_check_torch: logits in f32 differ by {error:.1e}: these are not the same weights or inputs")

    copy, products = ceilings()
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name(),
              "copy_gb_s": copy, "bf16_tflop_s": products, "error_f32": error, "forms": [], "missing": {}}

    def keep():
        with open(a.json, "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")

    keep()
    model = model.to(torch.bfloat16)
    for size in SIZES:
        torch._dynamo.reset()
        for name, run in forms(model):
            if time.perf_counter() - begin > a.until:
                result["missing"][f"{name}, {size}"] = "no time is left"
                keep()
                continue
            try:
                result["forms"].append(measure(name, run, case, size, a.seconds))
            except Exception as error:  # a form that this machine lacks (a compiler, say) is named, and the others are measured
                result["missing"][f"{name}, {size}"] = str(error)[:500]
                print(f"{name} of {size} candidates IS NOT MEASURED: {error}", file=sys.stderr)
            keep()


if __name__ == "__main__":
    main()
