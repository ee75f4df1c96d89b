"""Messages and media facts -> token ids, labels, spans and media plans; without pixels and without torch."""

from vlm_catalogs.render.renderer import RENDER_VERSION, Renderer, TokenIds, load_renderer
from vlm_catalogs.render.settings import RenderProblem, RenderSettings

__all__ = ["RENDER_VERSION", "RenderProblem", "RenderSettings", "Renderer", "TokenIds", "load_renderer"]
