"""What a rank holds before, between and after two loads."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import pytest
import torch
from ditplan.identity import plan_id
from safetensors.torch import load_file, save_file

from executor.engine.program import StepOutcome
from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline, load
from executor.placement.placement import UNSHARED, Placement
from executor.placement.quantization import Quantization
from executor.placement.split import Share
from executor.runtime.held import Held
from executor.runtime.one_rank import OneRank
from tests.executor.agent.scripted_planner import default_spec
from tests.executor.programs import program

INT8 = Placement(quantization=Quantization("int8_weight_only"))


def _fail(outcome: StepOutcome) -> None:
    raise KeyError("injected")


def test_nothing_holds_the_old_weights_when_the_new_ones_are_loaded(checkpoint: Path) -> None:
    old: list[weakref.ref[torch.nn.Module]] = []

    def loaded(placement: Placement) -> LoadedPipeline:
        assert [ref() for ref in old] == [None] * len(old)
        return load(str(checkpoint), quantization=placement.quantization)

    ranks, message = OneRank(Held(loaded, UNSHARED)), program("FC")
    with pytest.raises(KeyError, match="injected"):
        ranks.run(
            plan_id(message),
            message,
            default_spec(),
            on_step=_fail,
            is_cancelled=lambda: False,
        )
    components = ranks.loaded.pipeline.components.values()
    old += [weakref.ref(each) for each in components if isinstance(each, torch.nn.Module)]
    del components
    ranks.reload(INT8)
    assert ranks.loaded.placement == INT8


def test_another_checkpoint_in_the_place_of_the_first_is_not_taken_for_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Whatever was drawn under the served name was drawn with the first."""
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    held = Held(lambda placement: load(str(model)), UNSHARED)
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(PlacementError, match=r"model: .* not the checkpoint that was loaded first"):
        held.reload(INT8)
    assert not held.is_loaded


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (Placement(tp_size=3), r"--tp-size 3: transformer: .* 4 heads do not divide by 3"),
        (Placement(tp_size=2), "--tp-size 2: it does not divide the 3 ranks"),
        (Placement(encoders=("text_encoder_2",)), r"text_encoder_2: .* do not divide by 3 ranks"),
        (Placement(encoders=("text_encoder_3",)), "the pipeline has no text_encoder_3"),
    ],
)
def test_what_the_ranks_could_not_share_is_refused_before_anything_is_let_go_of(
    placement: Placement, message: str, checkpoint: Path
) -> None:
    held = Held(lambda placement: load(str(checkpoint), share=Share(0, 3)), UNSHARED)
    with pytest.raises(PlacementError, match=message):
        held.check(placement)
    held.check(UNSHARED)


def test_what_is_shared_already_can_stay_so(checkpoint: Path) -> None:
    share = Share(0, 2, 2, ("text_encoder",))
    held = Held(lambda placement: load(str(checkpoint), share=share), UNSHARED)
    held.check(Placement(2, ("text_encoder",), INT8.quantization))
    held.check(Placement(1, ("text_encoder", "text_encoder_2")))
