"""Rollouts by `transformers` in one Ray actor a rank, for verl on a CPU: what vLLM does on GPUs (see platform.py)."""

import asyncio
import hashlib
import os
from collections import Counter

import ray
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

MAX_BATCH = 256  # prompts a `generate` call
GATHER_SECONDS = 0.02  # requests come one by one: those within this time share a batch
WHOLE = {"top_p": 1.0, "top_k": -1}  # no setting of ours cuts the vocabulary


def _actor_name(rank: int) -> str:
    return f"transformers_server_{rank}"


class Draw(LogitsProcessor):
    """Makes a greedy `generate` sample, each row by a generator of its own: the largest of log-prob + Gumbel noise is a draw.
    Keeps the log-prob of each token drawn."""

    def __init__(self, seeds: list[int], temperature: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.log_probs = temperature, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        log_probs = noisy = (scores.float() / (self.temperature or 1.0)).log_softmax(-1)
        if self.temperature:
            uniform = torch.stack([torch.rand(scores.shape[-1], generator=own) for own in self.generators])
            noisy = log_probs - (-uniform.clamp(min=1e-20).log()).log()
        self.log_probs.append(log_probs.gather(-1, noisy.argmax(-1, keepdim=True)).squeeze(-1))
        return noisy


class Server:
    """Gathers concurrent requests of equal temperature into batches; its weights follow the trainer's.

    A response depends on the weights, the run's seed, the step, the prompt and how often that was asked for in this step, so a
    group's rollouts differ and a run repeated has the same ones. The first rank counts for all.
    """

    def __init__(self, path: str, response_tokens: int, seed: int, rank: int = 0):
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.model.generation_config = GenerationConfig()  # a checkpoint's own penalties are not ours
        self.response_tokens, self.seed, self.rank = response_tokens, seed, rank
        self.step, self.waiting, self.worker, self.asked = None, [], None, Counter()
        self.awake = asyncio.Event()
        self.awake.set()

    async def number(self, prompt_ids: list[int], step: int | None) -> int:
        """How often this prompt was asked for at this step, this time included."""
        self.asked[step, tuple(prompt_ids)] += 1
        return self.asked[step, tuple(prompt_ids)]

    async def generate(self, request_id, prompt_ids, sampling_params, **_) -> TokenOutput:
        if cut := {name: value for name, whole in WHOLE.items() if (value := sampling_params.get(name, whole)) != whole}:
            raise ValueError(f"{cut}: the rollout on a CPU samples from the whole vocabulary")
        ids = list(prompt_ids)
        first = self if self.rank == 0 else ray.get_actor(_actor_name(0))
        number = await (first.number(ids, self.step) if first is self else first.number.remote(ids, self.step))
        digest = hashlib.sha256(f"{self.seed} {self.step} {number} {ids}".encode()).digest()
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((ids, int.from_bytes(digest[:8]) >> 1, sampling_params["temperature"], answer))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self.waiting:
            await asyncio.sleep(GATHER_SECONDS)
            await self.awake.wait()
            temperature = self.waiting[0][2]
            batch = [request for request in self.waiting if request[2] == temperature][:MAX_BATCH]
            self.waiting = [request for request in self.waiting if request not in batch]
            prompts, seeds, _, answers = zip(*batch, strict=True)
            try:
                outputs = await asyncio.to_thread(self.sample, prompts, seeds, temperature)
                for answer, output in zip(answers, outputs, strict=True):
                    answer.set_result(output)
            except Exception as error:
                for answer in answers:
                    answer.set_exception(error)

    @torch.inference_mode()
    def sample(self, prompts: list[list[int]], seeds: list[int], temperature: float) -> list[TokenOutput]:
        """A response to each prompt, drawn with its seed."""
        eos, length = self.model.config.eos_token_id, max(map(len, prompts))
        draw = Draw(seeds, temperature)
        out = self.model.generate(
            input_ids=torch.tensor([[eos] * (length - len(p)) + p for p in prompts]),
            attention_mask=torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts]),
            generation_config=GenerationConfig(max_new_tokens=self.response_tokens, eos_token_id=eos, pad_token_id=eos),
            logits_processor=[draw],
        )
        outputs = []
        for row, log_probs in zip(out[:, length:].tolist(), torch.stack(draw.log_probs, 1).tolist(), strict=True):
            n = row.index(eos) + 1 if eos in row else len(row)
            extra = {"global_steps": self.step}
            outputs.append(TokenOutput(token_ids=row[:n], log_probs=log_probs[:n], stop_reason="completed", extra_fields=extra))
        return outputs

    async def update_weights(self, weights: dict[str, torch.Tensor], step: int) -> None:
        self.model.load_state_dict(weights)
        self.step = step
        self.asked.clear()

    async def sleep(self):
        self.awake.clear()

    async def wake_up(self, tags=None):
        self.awake.set()

    async def _nothing(self, *_, **__):
        """There is no cache to free, nothing to abort or to profile between batches."""

    clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):
    server_class = Server

    async def launch_servers(self):
        name, config = _actor_name(self.replica_rank), self.config
        actor = ray.remote(num_cpus=0)(self.server_class).options(name=name, max_concurrency=1000)
        server = actor.remote(self.model_config.path, config.response_length, config.seed, self.replica_rank)
        await server.__ray_ready__.remote()
        self.servers, self._server_handle, self._server_address = [server], server, f"ray:{name}"


class ServerAdapter(BaseRollout):
    """The training worker's side: hands its weights to the server."""

    def __init__(self, config, model_config, device_mesh, replica_rank: int = -1, **_):
        super().__init__(config, model_config, device_mesh)
        self.name = _actor_name(int(os.environ["RANK"]) if replica_rank == -1 else replica_rank)

    @property
    def server(self):
        return ray.get_actor(self.name)

    async def resume(self, tags):
        await self.server.wake_up.remote(tags=tags)

    async def release(self):
        await self.server.sleep.remote()

    async def update_weights(self, weights, global_steps=None, wire_format="named_tensors", **_):
        state = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        await self.server.update_weights.remote(state, global_steps)
