"""Rollouts by `transformers` in one Ray actor, for verl on a CPU: what vLLM does on GPUs (see platform.py)."""

from __future__ import annotations

import asyncio
import hashlib
import os

import ray
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

MAX_BATCH = 256  # prompts a `generate` call
GATHER_SECONDS = 0.02  # requests come one by one: those within this time share a batch
WHOLE = {"top_p": 1.0, "top_k": -1}  # the vocabulary is not cut: our settings have no other


def _actor_name(rank: int) -> str:
    return f"transformers_server_{rank}"


class Draw(LogitsProcessor):
    """Turns a greedy `generate` into one that samples, each row by a generator of its own: the largest of log-prob + Gumbel
    noise is a draw from the distribution. Keeps the log-prob of each token that it draws."""

    def __init__(self, seeds: list[int], temperature: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.log_probs = temperature, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        log_probs = noisy = (scores / (self.temperature or 1.0)).log_softmax(-1)
        if self.temperature:
            uniform = torch.stack([torch.rand(scores.shape[-1], generator=own) for own in self.generators])
            noisy = log_probs - (-uniform.clamp(min=1e-20).log()).log()
        self.log_probs.append(log_probs.gather(-1, noisy.argmax(-1, keepdim=True)).squeeze(-1))
        return noisy


@ray.remote(num_cpus=0)
class Server:
    """Gathers concurrent requests of equal temperature into batches; its weights follow the trainer's.

    A response depends on the weights, the prompt and a seed of its own (run, step and name of the request), and not on what
    shares its batch: the same run samples the same responses again.
    """

    def __init__(self, path: str, response_tokens: int, seed: int):
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.response_tokens, self.seed = response_tokens, seed
        self.step, self.waiting, self.worker = None, [], None
        self.asked: dict[str, int] = {}  # requests by name since the weights changed
        self.awake = asyncio.Event()
        self.awake.set()

    async def generate(self, request_id, prompt_ids, sampling_params, **_) -> TokenOutput:
        answer = asyncio.get_running_loop().create_future()
        if other := {name: sampling_params[name] for name, whole in WHOLE.items() if sampling_params.get(name, whole) != whole}:
            raise ValueError(f"{other}: the rollout on a CPU samples from the whole vocabulary")
        number = self.asked[request_id] = self.asked.get(request_id, 0) + 1  # a group's rollouts bear one name
        seed = hashlib.sha256(f"{self.seed} {self.step} {request_id} {number}".encode()).digest()
        request = (list(prompt_ids), int.from_bytes(seed[:8]) >> 1)
        self.waiting.append((request, sampling_params["temperature"], answer))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self.waiting:
            await asyncio.sleep(GATHER_SECONDS)
            await self.awake.wait()
            temperature = self.waiting[0][1]
            batch = [request for request in self.waiting if request[1] == temperature][:MAX_BATCH]
            self.waiting = [request for request in self.waiting if request not in batch]
            try:
                outputs = await asyncio.to_thread(self._generate, [request for request, _, _ in batch], temperature)
                for (_, _, answer), output in zip(batch, outputs, strict=True):
                    answer.set_result(output)
            except Exception as error:
                for _, _, answer in batch:
                    answer.set_exception(error)

    @torch.inference_mode()
    def _generate(self, requests: list[tuple[list[int], int]], temperature: float) -> list[TokenOutput]:
        eos, length = self.model.config.eos_token_id, max(len(prompt) for prompt, _ in requests)
        ids = torch.tensor([[eos] * (length - len(p)) + p for p, _ in requests])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p, _ in requests])
        draw = Draw([seed for _, seed in requests], temperature)
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(max_new_tokens=self.response_tokens, eos_token_id=eos, pad_token_id=eos),
            logits_processor=LogitsProcessorList([draw]),
        )
        outputs = []
        for row, log_probs in zip(out[:, length:].tolist(), torch.stack(draw.log_probs, 1).tolist(), strict=True):
            n = row.index(eos) + 1 if eos in row else len(row)
            extra = {"global_steps": self.step}
            outputs.append(TokenOutput(token_ids=row[:n], log_probs=log_probs[:n], stop_reason="completed", extra_fields=extra))
        return outputs

    async def update_weights(self, weights: dict[str, torch.Tensor], step: int) -> None:
        self.model.load_state_dict(weights)
        self.step, self.asked = step, {}

    async def sleep(self):
        self.awake.clear()

    async def wake_up(self, tags=None):
        self.awake.set()

    async def _nothing(self, *_, **__):
        """There is no cache to free, nothing to abort or to profile between batches."""

    clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):
    async def launch_servers(self):
        name = _actor_name(self.replica_rank)
        server = Server.options(name=name, max_concurrency=1000).remote(
            self.model_config.path, self.config.response_length, self.config.seed
        )
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
