"""Rollouts by `transformers` in one Ray actor, for verl on a CPU: what vLLM does on GPUs (see platform.py)."""

from __future__ import annotations

import asyncio
import os

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

MAX_BATCH = 256  # prompts a `generate` call
GATHER_SECONDS = 0.02  # requests come one by one: those within this time share a batch
SAMPLING = ("temperature", "top_p", "top_k")


def _actor_name(rank: int) -> str:
    return f"transformers_server_{rank}"


@ray.remote(num_cpus=0)
class Server:
    """Gathers concurrent requests of equal sampling parameters into batches; its weights follow the trainer's."""

    def __init__(self, path: str, response_tokens: int):
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.response_tokens = response_tokens
        self.step, self.waiting, self.worker = None, [], None
        self.awake = asyncio.Event()
        self.awake.set()

    async def generate(self, request_id, prompt_ids, sampling_params, **_) -> TokenOutput:
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((list(prompt_ids), tuple(sampling_params[name] for name in SAMPLING), answer))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self.waiting:
            await asyncio.sleep(GATHER_SECONDS)
            await self.awake.wait()
            sampling = self.waiting[0][1]
            batch = [request for request in self.waiting if request[1] == sampling][:MAX_BATCH]
            self.waiting = [request for request in self.waiting if request not in batch]
            try:
                outputs = await asyncio.to_thread(self._generate, [prompt for prompt, _, _ in batch], *sampling)
                for (_, _, answer), output in zip(batch, outputs, strict=True):
                    answer.set_result(output)
            except Exception as error:
                for _, _, answer in batch:
                    answer.set_exception(error)

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], temperature: float, top_p: float, top_k: int) -> list[TokenOutput]:
        eos, length = self.model.config.eos_token_id, max(map(len, prompts))
        ids = torch.tensor([[eos] * (length - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        sampling = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": max(top_k, 0)}
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.response_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
            output_logits=True,
            return_dict_in_generate=True,
            **sampling,
        )
        tokens = out.sequences[:, length:]
        log_probs = (torch.stack(out.logits, 1) / (temperature or 1.0)).log_softmax(-1)
        log_probs = log_probs.gather(-1, tokens[..., None]).squeeze(-1)
        outputs = []
        for row, row_log_probs in zip(tokens.tolist(), log_probs.tolist(), strict=True):
            n = row.index(eos) + 1 if eos in row else len(row)
            extra = {"global_steps": self.step}
            outputs.append(
                TokenOutput(token_ids=row[:n], log_probs=row_log_probs[:n], stop_reason="completed", extra_fields=extra)
            )
        return outputs

    async def update_weights(self, weights: dict[str, torch.Tensor], step: int) -> None:
        self.model.load_state_dict(weights)
        self.step = step

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
        server = Server.options(name=name, max_concurrency=1000).remote(self.model_config.path, self.config.response_length)
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
