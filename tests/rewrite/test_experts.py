"""Mixtures of experts as wide linears: transformers' and ExecuTorch's own blocks, and what is left as it is."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from executorch.examples.models.llama.llama_transformer import MOEFeedForward
from executorch.examples.models.llama.model_args import ModelArgs
from torch import nn
from torch.export import Dim
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeMoE
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.phimoe.modeling_phimoe import PhimoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from vkfuse.program.load import from_exported
from vkfuse.rewrite.repairs.experts import experts_as_wide_linears
from vkfuse.rewrite.repairs.experts.groups import choices_as_arithmetic
from vkfuse.rewrite.repairs.experts.rows import grouped_products_of_all

COLUMNS, EXPERTS = 64, 6
SHAPE = {"hidden_size": COLUMNS, "intermediate_size": 32, "num_experts_per_tok": 2}
NEEDED = {"topk", "sort", "histc", "gather", "index", "index_put", "grouped_mm_fallback", "einsum"}


class _Block(nn.Module):
    """Tokens [1, T, columns] through a block, and on."""

    def __init__(self, block, *, flat=False):
        super().__init__()
        self.block, self._flat = block, flat

    def forward(self, x):
        made = self.block(x[0] if self._flat else x)
        return x + (made[0] if isinstance(made, tuple) else made)


def _mixtral(how):
    config = transformers.MixtralConfig(num_local_experts=EXPERTS, experts_implementation=how, **SHAPE)
    return _Block(MixtralSparseMoeBlock(config))


def _qwen(how):
    config = transformers.Qwen3MoeConfig(
        num_experts=EXPERTS,
        moe_intermediate_size=32,
        norm_topk_prob=True,
        experts_implementation=how,
        **SHAPE,
    )
    return _Block(Qwen3MoeSparseMoeBlock(config))


def _gpt_oss():
    config = transformers.GptOssConfig(
        num_local_experts=EXPERTS, experts_implementation="grouped_mm", **SHAPE
    )
    return _Block(GptOssMLP(config))


def _example():
    given = {
        "dim": COLUMNS,
        "hidden_dim": 32,
        "moe": True,
        "num_experts": EXPERTS,
        "num_activated_experts": 2,
    }
    return _Block(MOEFeedForward(ModelArgs(**given)), flat=True)


BLOCKS = {
    "mixtral, grouped": lambda: _mixtral("grouped_mm"),
    "mixtral, batched": lambda: _mixtral("batched_mm"),
    "qwen3, grouped": lambda: _qwen("grouped_mm"),
    "gpt-oss": _gpt_oss,
    "the example": _example,
}


def _exported(block):
    torch.manual_seed(0)
    made = block().eval()
    for weight in made.parameters():
        weight.data.normal_(0, 0.3)
    with torch.no_grad():
        shapes = ({1: Dim("tokens", min=2, max=64)},)
        return torch.export.export(made, (torch.randn(1, 5, COLUMNS),), dynamic_shapes=shapes)


def _check_same(exported, repaired, cases):
    """See that two programs give the same for tokens of a scale, up to the order of sums."""
    before, after = exported.module(), repaired.module()
    for tokens, scale in cases:
        x = torch.randn(1, tokens, COLUMNS, generator=torch.Generator().manual_seed(tokens)) * scale
        with torch.no_grad():
            wanted, got = before(x), after(x)
        assert (got - wanted).abs().max() <= 2e-6 * wanted.abs().max().clamp(min=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    """Two or three linears in place of what reads by index; the same result, where scores are equal too."""
    exported = from_exported(_exported(BLOCKS[name])).exported
    repaired, (note,) = experts_as_wide_linears(exported)
    assert note.code == "experts-as-wide-linears"
    left = {str(n.target).split(".")[1] for n in repaired.graph.nodes if "." in str(n.target)}
    assert not left & NEEDED
    tables = [
        n.args[1].meta["val"].shape for n in repaired.graph.nodes if n.target == torch.ops.aten.linear.default
    ]
    assert tables[-1] == (COLUMNS, EXPERTS * 32)
    _check_same(exported, repaired, ((2, 1.0), (64, 30.0), (7, 0.0), (33, 1e-3)))


def test_other_choices_are_left():
    """The numbers of the chosen are a result; nothing is multiplied; a product is read before it is summed."""

    class Numbers(nn.Module):
        def forward(self, x):
            return torch.topk(x, 2)[1]

    class Values(nn.Module):
        def forward(self, x):
            return torch.topk(x, 2)[0].sum(-1)

    class Unsummed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 8, 4))

        def forward(self, x):
            rows = self.weight[torch.topk(x, 2)[1].reshape(-1)]
            return rows @ x.repeat_interleave(2, 0).unsqueeze(-1)

    for model in (Numbers(), Values(), Unsummed()):
        exported = from_exported(torch.export.export(model, (torch.randn(3, 4),))).exported
        assert experts_as_wide_linears(exported) == (exported, ())


GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 32}


def _glm4():
    config = transformers.Glm4MoeConfig(**{**SHAPE, **GROUPS}, experts_implementation="grouped_mm")
    return _Block(Glm4MoeMoE(config))


def _deepseek():
    more = {"topk_method": "group_limited_greedy", "experts_implementation": "grouped_mm"}
    return _Block(DeepseekV2Moe(transformers.DeepseekV2Config(**{**SHAPE, **GROUPS}, **more)))


@pytest.mark.slow
@pytest.mark.parametrize(("block", "choices"), [(_glm4, 2), (_deepseek, 1)])
def test_groups_of_experts(block, choices):
    """Groups are chosen by their best experts, and experts of those alone."""
    exported = from_exported(_exported(block)).exported
    repaired, (note,) = choices_as_arithmetic(exported)
    assert note.code == "choices-as-arithmetic"
    left = {str(n.target).split(".")[1] for n in repaired.graph.nodes if "." in str(n.target)}
    assert not left & {"scatter", "masked_fill", "bitwise_not", "logical_not"}
    assert [n.target for n in exported.graph.nodes].count(torch.ops.aten.topk.default) == choices + 1
    repaired, (note,) = experts_as_wide_linears(repaired)
    assert note.code == "experts-as-wide-linears"
    assert torch.ops.aten.topk.default not in {n.target for n in repaired.graph.nodes}
    _check_same(exported, repaired, ((2, 0.5), (64, 0.2), (33, 1e-3)))


def _phimoe():
    config = transformers.PhimoeConfig(
        num_local_experts=EXPERTS, experts_implementation="grouped_mm", **SHAPE
    )
    return _Block(PhimoeSparseMoeBlock(config))


@pytest.mark.slow
def test_groups_of_any_choice():
    """Experts that are chosen one after the other: rows by all matrices, also where most experts have no row."""
    exported = from_exported(_exported(_phimoe)).exported
    assert experts_as_wide_linears(exported) == (exported, ())
    repaired, (note,) = grouped_products_of_all(exported)
    assert (note.code, len(note.nodes)) == ("grouped-products-of-all", 2)
    assert not any("grouped" in str(n.target) for n in repaired.graph.nodes)
    _check_same(exported, repaired, ((2, 1.0), (64, 1.0), (33, 1e-3)))


def test_scores_among_infinities():
    """A router that hides all experts that are not chosen behind a sigmoid, as Llama 4's."""
    config = transformers.Llama4TextConfig(
        hidden_size=COLUMNS, intermediate_size=32, num_local_experts=EXPERTS, num_experts_per_tok=1
    )
    block, x = _Block(Llama4TextMoe(config)).eval(), torch.randn(1, 9, COLUMNS)
    for weight in block.parameters():
        weight.data.normal_(0, 0.3)
    exported = from_exported(torch.export.export(block, (x,))).exported
    repaired, (note,) = choices_as_arithmetic(exported)
    assert note.code == "choices-as-arithmetic"
    assert not {torch.ops.aten.topk.default, torch.ops.aten.scatter.src} & {
        n.target for n in repaired.graph.nodes
    }
    torch.testing.assert_close(repaired.module()(x), exported.module()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tokens", "replaced"), [(64, True), (2048, False)])
def test_choices_among_very_many(tokens, replaced):
    """Each score of a token beside each other is at most 1 GiB: 512 experts for 64 tokens are, for 2,048 are not."""

    class Mask(nn.Module):
        def forward(self, scores):
            return torch.zeros_like(scores).scatter(-1, scores.topk(2).indices, 1.0)

    program = from_exported(torch.export.export(Mask(), (torch.randn(tokens, 512),))).exported
    _, notes = choices_as_arithmetic(program)
    assert bool(notes) is replaced


def test_choices_that_end_otherwise():
    """Infinities that are read, the number of what is chosen, a mask of other numbers, and choices of rows."""

    class Chooses(nn.Module):
        def forward(self, x):
            values, places = torch.topk(x, 2)
            return (
                torch.full_like(x, -torch.inf).scatter(1, places, values),
                torch.topk(x * 2, 2)[1],
                torch.zeros_like(x).scatter(1, torch.topk(x * 3, 2)[1], 0.5),
                torch.topk(x, 2, 0)[0].sum(0),
                torch.topk(x, 2, largest=False)[0].sum(-1),
                torch.topk(x * 4, 2)[0].sum(0),
            )

    exported = from_exported(torch.export.export(Chooses(), (torch.randn(3, 4),))).exported
    assert choices_as_arithmetic(exported) == (exported, ())


class _Experts(nn.Module):
    """Two of six experts for each token [T, 8] by `scores` of them; `total` of outputs [T, 2, 8] and weights."""

    def __init__(self, scores, total):
        super().__init__()
        self.gate = nn.Parameter(torch.randn(8, 6))
        self.up, self.down = (nn.Parameter(torch.randn(6, *sizes)) for sizes in ((16, 8), (8, 16)))
        self.register_buffer("allowed", torch.tensor([True, False, True, False, True, True]))
        self._scores, self._total = scores, total

    def forward(self, x):
        weights, chosen = torch.topk(self._scores(x @ self.gate, self.allowed), 2)
        inner = torch.einsum("ti,taoi->tao", x, self.up[chosen]).relu()
        return self._total(torch.einsum("tao,taio->tai", inner, self.down[chosen]), weights)


def _weighted(outputs, weights):
    return torch.einsum("tai,ta->ti", outputs, weights)


SCORES = {
    "infinity": lambda scores, allowed: scores.masked_fill(~allowed, -torch.inf),
    "lowest": lambda scores, allowed: scores.masked_fill(~allowed, torch.finfo(scores.dtype).min),
}


@pytest.mark.parametrize("total", [_weighted, lambda y, w: _weighted(y, w.softmax(1))])
@pytest.mark.parametrize("name", SCORES)
def test_masked_scores(name, total):
    """Experts that a mask leaves no score, as where groups are chosen first, are not chosen."""
    torch.manual_seed(0)
    x = torch.randn(5, 8)
    exported = from_exported(torch.export.export(_Experts(SCORES[name], total), (x,))).exported
    repaired, (note,) = experts_as_wide_linears(exported)
    assert note.code == "experts-as-wide-linears"
    torch.testing.assert_close(repaired.module()(x), exported.module()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "total",
    [
        lambda y, w: (y * w[..., None]).sum(1, dtype=torch.float64),
        lambda y, w: torch.einsum("tabi,ta->tbi", y[:, :, None].repeat(1, 1, 6, 1), w),
        lambda y, w: torch.einsum("tabi,ta->tbi", y[:, :, None] * torch.ones(6, 1), w),
        lambda y, w: torch.einsum("ta,ta->t", w, w)[:, None] * _weighted(y, w),
        lambda y, w: _weighted(y, w**-0.5),
    ],
)
def test_sums_that_are_left(total):
    """Sums in another type or of other ranks, and what is no number for experts that are not chosen."""
    model = _Experts(lambda scores, _allowed: scores.relu(), total)
    exported = from_exported(torch.export.export(model, (torch.randn(1, 8),))).exported
    assert experts_as_wide_linears(exported) == (exported, ())


@pytest.mark.slow
def test_experts_in_four_bits(tmp_path):
    """`--import` and `--quantize`: a file of one delegate whose experts are tables of 4 bits."""
    torch.export.save(_exported(BLOCKS["mixtral, grouped"]), tmp_path / "model.pt2")
    options = ["--import", "transformers.integrations.moe", "--quantize", ".*experts.*=int4:32"]
    run = [sys.executable, "-m", "vkfuse", "optimize", "model.pt2", "-o", "model.pte", "--format", "json"]
    got = subprocess.run(
        [*run, *options, "--baseline", "none"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert got.returncode == 0, got.stderr
    report = json.loads(got.stdout)
    assert report["verify"]["ok"]
    assert report["delegation"]["subgraphs"] == 1
    assert not report["delegation"]["cpu"]
    assert {t["name"]: t["rung"] for t in report["tables"]} == {
        "block.experts.gate_up_proj": "q4",
        "block.experts.down_proj": "q4",
    }
    assert "experts-as-wide-linears" in {r["code"] for r in report["repairs"]}
    assert report["losses"]
