"""The backends, providers and plugins of imgkit, registered like those of any other package."""

from __future__ import annotations

from collections.abc import Iterable

from imgkit.plugins.hookspecs import BackendSpec, EngineSpec, PluginSpec, ProviderSpec, hookimpl


@hookimpl
def imgkit_backends() -> Iterable[BackendSpec]:
    """Return the specs of the three backends."""
    return (
        BackendSpec(
            name="offline",
            target="imgkit.backends.offline:OfflineBackend",
            flavor="sync",
            reaches_network=False,
            summary="draws locally: no key, no network, no cost",
        ),
        BackendSpec(
            name="requests",
            target="imgkit.backends.requests:RequestsBackend",
            flavor="sync",
            checks_peer=True,
            summary="HTTP with requests (blocking)",
        ),
        BackendSpec(
            name="aiohttp",
            target="imgkit.backends.aiohttp:AiohttpBackend",
            flavor="async",
            checks_peer=True,
            summary="HTTP with aiohttp (asyncio)",
        ),
    )


@hookimpl
def imgkit_providers() -> Iterable[ProviderSpec]:
    """Return the specs of the providers."""
    return (
        ProviderSpec(
            name="openai",
            target="imgkit.providers.openai:OpenAIProvider",
            summary="OpenAI's Images API, and compatible servers",
        ),
        ProviderSpec(
            name="azure",
            target="imgkit.providers.azure:AzureProvider",
            summary="OpenAI's models at Azure: deployments, api-version, API key or Entra token",
        ),
        ProviderSpec(
            name="azure_flux",
            target="imgkit.providers.azure_flux:AzureFluxProvider",
            summary="FLUX.2 of Black Forest Labs at Azure AI Foundry",
        ),
        ProviderSpec(
            name="bfl",
            target="imgkit.providers.bfl:BflProvider",
            summary="FLUX models of Black Forest Labs, as jobs",
        ),
        ProviderSpec(
            name="gemini",
            target="imgkit.providers.gemini:GeminiProvider",
            summary="Google's image models, at the Gemini API and at Vertex AI",
        ),
        ProviderSpec(
            name="fal",
            target="imgkit.providers.fal:FalProvider",
            summary="models of many makers in the queue of fal.ai",
        ),
        ProviderSpec(
            name="ideogram",
            target="imgkit.providers.ideogram:IdeogramProvider",
            summary="Ideogram's API v2, as jobs, with quoted prices",
        ),
        ProviderSpec(
            name="recraft",
            target="imgkit.providers.recraft:RecraftProvider",
            summary="Recraft's raster and vector models, with native variations",
        ),
        ProviderSpec(
            name="comfyui",
            target="imgkit.providers.comfyui:ComfyUIProvider",
            summary="workflows of a ComfyUI server, as jobs",
        ),
        ProviderSpec(
            name="luma",
            target="imgkit.providers.luma:LumaProvider",
            summary="Photon models of Luma, as jobs; input images by URL",
        ),
        ProviderSpec(
            name="a1111",
            target="imgkit.providers.a1111:A1111Provider",
            summary="AUTOMATIC1111's web UI and Forge, with their progress",
        ),
        ProviderSpec(
            name="comfy_router",
            target="imgkit.providers.comfy_router:ComfyRouterProvider",
            summary="models of many makers at Comfy Router, each request once under its key",
        ),
        ProviderSpec(
            name="fireworks",
            target="imgkit.providers.fireworks:FireworksProvider",
            summary="FLUX models and others at Fireworks",
        ),
        ProviderSpec(
            name="replicate",
            target="imgkit.providers.replicate:ReplicateProvider",
            summary="models of many makers at Replicate, as jobs",
        ),
        ProviderSpec(
            name="openrouter",
            target="imgkit.providers.openrouter:OpenRouterProvider",
            summary="image models of many makers at OpenRouter, with streams and costs",
        ),
        ProviderSpec(
            name="together",
            target="imgkit.providers.together:TogetherProvider",
            summary="image models of many makers at Together",
        ),
        ProviderSpec(
            name="xai",
            target="imgkit.providers.xai:XaiProvider",
            summary="Grok's image models at xAI, with costs",
        ),
        ProviderSpec(
            name="bedrock",
            target="imgkit.providers.bedrock:BedrockProvider",
            summary="Stability's models at Amazon Bedrock, signed with AWS keys or a bearer token",
        ),
        ProviderSpec(
            name="stability",
            target="imgkit.providers.stability:StabilityProvider",
            summary="Stability's own API: drawing, editing, control and upscaling",
        ),
        ProviderSpec(
            name="cloudflare",
            target="imgkit.providers.cloudflare:CloudflareProvider",
            summary="models of Cloudflare's Workers AI, by account",
        ),
        ProviderSpec(
            name="huggingface",
            target="imgkit.providers.huggingface:HuggingFaceProvider",
            summary="models behind Hugging Face's router: hf-inference, fal, Together, nscale",
        ),
        ProviderSpec(
            name="localai",
            target="imgkit.providers.localai:LocalAIProvider",
            summary="a LocalAI server, with its route for masks",
        ),
        ProviderSpec(
            name="sglang",
            target="imgkit.providers.sglang:SGLangProvider",
            summary="an SGLang server for diffusion models",
        ),
        ProviderSpec(
            name="vllm",
            target="imgkit.providers.vllm:VllmProvider",
            summary="a vLLM-Omni server",
        ),
    )


@hookimpl
def imgkit_plugins() -> Iterable[PluginSpec]:
    """Return the specs of the plugins that ``plugins=[…]`` accepts by name."""
    return (
        PluginSpec(
            name="cache",
            target="imgkit.default_plugins.caching:CachePlugin",
            summary="pays for equal requests once, even across processes",
        ),
        PluginSpec(
            name="logging",
            target="imgkit.default_plugins.logging:LoggingPlugin",
            summary="one log line per call to the logger imgkit, HTTP details at DEBUG",
        ),
        PluginSpec(
            name="recorder",
            target="imgkit.default_plugins.recorder:RecorderPlugin",
            summary="records requests and replies of any backend to a cassette (IMGKIT_CASSETTE)",
        ),
        PluginSpec(
            name="retry",
            target="imgkit.default_plugins.retry:RetryPlugin",
            summary="retries attempts that cannot have been billed; on by default",
        ),
        PluginSpec(
            name="telemetry",
            target="imgkit.default_plugins.telemetry:TelemetryPlugin",
            summary="OpenTelemetry spans and metrics",
            install="pip install 'imgkit-service[otel]'",
        ),
    )


@hookimpl
def imgkit_engines() -> Iterable[EngineSpec]:
    """Return the specs of the engines."""
    return (
        EngineSpec(
            name="local",
            target="imgkit.engines.local:LocalEngine",
            summary="carries out requests in this process",
        ),
        EngineSpec(
            name="dask",
            target="imgkit.engines.dask:DaskEngine",
            summary="carries out requests on the workers of a Dask cluster",
            install="pip install 'imgkit-service[dask]'",
        ),
    )
