"""supabase-js as browsers load it: one script of its npm package, at the version that `package-lock.json` here pins."""

from pathlib import Path

from server.stack.environments import Node, NodePackages
from server.stack.layout import Layout

SOURCE = Path(__file__).parent
SCRIPT = "node_modules/@supabase/supabase-js/dist/umd/supabase.js"


async def supabase_js(data_dir: Path) -> str:
    """The script, which defines `supabase`. Installed once, beside the software of the stack in `data_dir`."""
    packages = NodePackages(Node(Layout(data_dir, api_port=0)), "supabase-js", SOURCE)
    await packages.install(lambda _: None)
    return (packages.folder / SCRIPT).read_text(encoding="utf-8")
