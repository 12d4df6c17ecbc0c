"""The judge asked of a written delegate's calls, whichever of its sizes vary."""

from collections.abc import Iterator
from typing import Final

from vkfuse.lint.operands import Reader
from vkfuse.lint.varying import Varying, varying
from vkfuse.pte.delegates import VulkanDelegate
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import OperatorCall
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.judge import judge
from vkfuse.runtime.versions import Runtime

_STATIC: Final = Varying()


class Asked:
    """What a runtime objects to in the calls of a delegate."""

    def __init__(self, pte: PteFile, delegate: VulkanDelegate, target: Runtime) -> None:
        varies = varying(pte).get(delegate.place, _STATIC)
        self._target = target
        self._surely, self._perhaps = (Reader(delegate, each) for each in (varies.surely, varies.perhaps))
        self._untold = varies.perhaps != varies.surely
        self._cases = [[Reader(delegate, each) for each in case] for case in varies.cases]

    def objections(self, call: OperatorCall) -> Iterator[tuple[Objection, bool]]:
        """Yield each with whether it holds for sure: else only if a size varies that the file leaves open."""
        found = judge(self._surely.operands(call), self._target)
        yield from ((objection, True) for objection in found)
        if not self._untold:
            return
        known = {objection.code for objection in found}
        for objection in judge(self._perhaps.operands(call), self._target):
            if objection.code not in known:
                yield objection, self._anyway(objection.code, call)

    def _anyway(self, code: Code, call: OperatorCall) -> bool:
        """Whether it holds whichever axis of a tensor at the border is the one that varies."""
        return any(all(self._holds(code, call, reader) for reader in case) for case in self._cases)

    def _holds(self, code: Code, call: OperatorCall, reader: Reader) -> bool:
        return any(objection.code is code for objection in judge(reader.operands(call), self._target))
