"""The parts that generated models are put together from: what people write into a forward pass, a loss or a callback.

A part is text. In it `__I__` is the number of the part in its case, `__H__` the width of `h`, `ME` the object that holds
the part: `self` in forward, and the way to it from `fit` in a callback. `h` is the hidden tensor, of shape (rows, width).
"""

import re
from dataclasses import dataclass, field, replace
from random import Random


@dataclass(frozen=True)
class Part:
    """Lines for the places of a case that a part may add to."""

    name: str
    kind: str = ""
    module: str = ""
    klass: str = ""
    init: str = ""
    forward: str = ""
    callback: str = ""
    bases: str = ""
    words: frozenset[str] = field(default_factory=frozenset)

    @property
    def needs_module(self) -> bool:
        """Whether it works in an nn.Module only."""
        text = self.init + self.forward + self.callback
        return bool(re.search(r"register_|nn\.|self\.training|_buffers|super\(\)|\.eval\(|\.modules\(", text))

    def numbered(self, number: int, width: int, holder: str) -> "Part":
        """The part as it stands in a case. `holder` is the way from `fit` to the object that holds it."""

        def text(lines: str, me: str) -> str:
            return re.sub(r"\bME\b", me, lines.replace("__I__", str(number)).replace("__H__", str(width)))

        return replace(
            self,
            module=text(self.module, "self"),
            klass=text(self.klass, "self"),
            init=text(self.init, "self"),
            forward=text(self.forward, "self"),
            callback=text(self.callback, holder),
            bases=text(self.bases, "self"),
        )


def _parsed(text: str) -> list[Part]:
    """`=== name [kind words]` begins a part, `--- section` a section of it."""
    parts: list[Part] = []
    for block in re.split(r"^=== ", text, flags=re.M)[1:]:
        title, _, body = block.partition("\n")
        match = re.fullmatch(r"(\w+) \[([\w ]+)\]", title.strip())
        assert match is not None, title
        kind, *words = match[2].split()
        sections = dict(zip(*[iter(re.split(r"^--- (\w+)\n", body, flags=re.M)[1:])] * 2, strict=True))
        sections = {name: lines.rstrip("\n") + "\n" for name, lines in sections.items()}
        parts.append(Part(match[1], kind, words=frozenset(words), **sections))
    return parts


PARTS = _parsed("""
=== buffer_rebound [state]
--- init
self.register_buffer("mean__I__", torch.zeros(__H__))
--- forward
self.mean__I__ = 0.9 * self.mean__I__ + 0.1 * h.detach().mean(0)
h = h - self.mean__I__
=== buffer_rebound_kept_only [state]
--- init
self.register_buffer("n__I__", torch.zeros(()))
--- forward
self.n__I__ = self.n__I__ + 1
=== buffer_rebound_counts [state]
--- init
self.register_buffer("n__I__", torch.zeros(()))
--- forward
self.n__I__ = self.n__I__ + 1
h = h * (1 + 0.001 * self.n__I__)
=== buffer_in_place [state]
--- init
self.register_buffer("mean__I__", torch.zeros(__H__))
--- forward
self.mean__I__.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
h = h - self.mean__I__
=== buffer_plus_equals [state]
--- init
self.register_buffer("n__I__", torch.zeros((), dtype=torch.long))
--- forward
self.n__I__ += 1
=== buffer_plus_equals_used [state]
--- init
self.register_buffer("n__I__", torch.zeros(1))
--- forward
self.n__I__ += 1
h = h * (1 + 0.01 * torch.sin(self.n__I__))
=== buffer_data_assigned [state]
--- init
self.register_buffer("mean__I__", torch.zeros(__H__))
--- forward
self.mean__I__.data = 0.9 * self.mean__I__.data + 0.1 * h.detach().mean(0)
h = h - self.mean__I__
=== buffer_copied_into [state]
--- init
self.register_buffer("last__I__", torch.zeros(__H__))
--- forward
h = h + 0.1 * self.last__I__.clone()
self.last__I__.copy_(h.detach().mean(0))
=== buffer_fill_and_zero [state]
--- init
self.register_buffer("peak__I__", torch.ones(()))
--- forward
self.peak__I__.fill_(1.0)
torch.maximum(self.peak__I__, h.detach().abs().max(), out=self.peak__I__)
h = h / self.peak__I__
=== buffer_not_persistent [state]
--- init
self.register_buffer("scale__I__", torch.ones(__H__), persistent=False)
--- forward
self.scale__I__ = self.scale__I__ * 0.99 + 0.01 * h.detach().std(0)
h = h / (self.scale__I__ + 0.1)
=== buffer_by_dict [state]
--- init
self.register_buffer("n__I__", torch.zeros(()))
--- forward
self._buffers["n__I__"] = self._buffers["n__I__"] + 1
h = h + 0.01 * self.n__I__
=== buffer_by_setattr [state]
--- init
self.register_buffer("n__I__", torch.zeros(()))
--- forward
setattr(self, "n" + "__I__", getattr(self, "n__I__") + 1)
h = h + 0.01 * self.n__I__
=== buffers_swapped [state]
--- init
self.register_buffer("a__I__", torch.zeros(__H__))
self.register_buffer("b__I__", torch.ones(__H__))
--- forward
self.a__I__, self.b__I__ = self.b__I__, self.a__I__
h = h + 0.1 * self.a__I__
=== buffer_lazy [state]
--- forward
if "lazy__I__" not in self._buffers:
    self.register_buffer("lazy__I__", torch.ones(h.shape[1]))
h = h * self.lazy__I__
=== buffer_none_first [state]
--- init
self.register_buffer("first__I__", None)
--- forward
if self.first__I__ is None:
    self.first__I__ = h.detach().mean(0)
h = h - self.first__I__
=== buffer_bank_pointer [state]
--- init
self.register_buffer("bank__I__", torch.zeros(4, __H__))
self.at__I__ = 0
--- forward
self.bank__I__[self.at__I__ % 4] = h.detach().mean(0)
self.at__I__ += 1
h = h + 0.1 * self.bank__I__.mean(0)
=== buffer_bank_tensor_pointer [state]
--- init
self.register_buffer("bank__I__", torch.zeros(4, __H__))
self.register_buffer("at__I__", torch.zeros((), dtype=torch.long))
--- forward
self.bank__I__.index_copy_(0, self.at__I__.view(1), h.detach().mean(0, keepdim=True))
self.at__I__.add_(1).remainder_(4)
h = h + 0.1 * self.bank__I__.mean(0)
=== buffer_bank_int_pointer [state]
--- init
self.register_buffer("bank__I__", torch.zeros(4, __H__))
self.register_buffer("at__I__", torch.zeros((), dtype=torch.long))
--- forward
self.bank__I__[int(self.at__I__)] = h.detach().mean(0)
self.at__I__ = (self.at__I__ + 1) % 4
h = h + 0.1 * self.bank__I__.mean(0)
=== buffer_rolled [state]
--- init
self.register_buffer("queue__I__", torch.zeros(3, __H__))
--- forward
self.queue__I__ = torch.roll(self.queue__I__, 1, 0)
self.queue__I__[0] = h.detach().mean(0)
h = h + 0.1 * self.queue__I__.sum(0)
=== nn_buffer [state]
--- init
self.b__I__ = nn.Buffer(torch.ones(__H__))
--- forward
h = h * self.b__I__
=== nn_buffer_written [state]
--- init
self.b__I__ = nn.Buffer(torch.ones(__H__))
--- forward
self.b__I__.mul_(0.99)
h = h * self.b__I__
=== ema_of_a_parameter [state]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
self.register_buffer("ema__I__", torch.ones(__H__))
--- forward
with torch.no_grad():
    self.ema__I__.lerp_(self.w__I__, 0.1)
h = h * self.w__I__ + 0.1 * self.ema__I__
=== ema_network [state]
--- init
self.fast__I__ = nn.Linear(__H__, __H__)
self.slow__I__ = copy.deepcopy(self.fast__I__).requires_grad_(False)
--- forward
with torch.no_grad():
    for slow, fast in zip(self.slow__I__.parameters(), self.fast__I__.parameters()):
        slow.data.mul_(0.9).add_(fast.data, alpha=0.1)
    target = self.slow__I__(h)
h = self.fast__I__(h) + 0.1 * target
=== parameter_clamped [state]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
--- forward
self.w__I__.data.clamp_(0.5, 1.0)
h = h * self.w__I__
=== parameter_data_assigned [state]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
--- forward
self.w__I__.data = self.w__I__.data * 0.999
h = h * self.w__I__
=== parameter_normalized_no_grad [state]
--- init
self.w__I__ = nn.Parameter(torch.randn(__H__, __H__))
--- forward
with torch.no_grad():
    self.w__I__.div_(self.w__I__.norm(dim=1, keepdim=True))
h = h @ self.w__I__
=== vector_quantizer [state]
--- init
self.register_buffer("codes__I__", torch.randn(5, __H__))
self.register_buffer("uses__I__", torch.zeros(5))
--- forward
near = torch.cdist(h.detach(), self.codes__I__).argmin(1)
hot = F.one_hot(near, 5).to(h.dtype)
self.uses__I__ = self.uses__I__ * 0.9 + hot.sum(0)
self.codes__I__.data.mul_(0.9).add_(0.1 * (hot.t() @ h.detach()) / (1 + hot.sum(0))[:, None])
h = h + (self.codes__I__[near] - h).detach()
=== stored_tensor [state]
--- forward
self.last__I__ = h.detach()
=== stored_tensor_with_graph [state]
--- forward
self.last__I__ = h
=== stored_tensor_used_next [state]
--- init
self.last__I__ = None
--- forward
if self.last__I__ is not None:
    h = h + 0.1 * self.last__I__.mean(0)
self.last__I__ = h.detach()
=== stored_in_list [state]
--- init
self.seen__I__ = []
--- forward
self.seen__I__.append(h.detach().mean(0))
=== stored_in_deque [state]
--- init
self.seen__I__ = deque(maxlen=4)
--- forward
self.seen__I__.append(h.detach().mean(0))
h = h - 0.1 * torch.stack(list(self.seen__I__)).mean(0)
=== stored_in_deque_kept_only [state]
--- init
self.seen__I__ = deque(maxlen=3)
--- forward
self.seen__I__.append(h.detach().mean(0))
=== stored_in_global_dict [state]
--- module
SEEN__I__ = {}
--- forward
SEEN__I__["h"] = h.detach().sum()
=== stored_in_dict_attribute [state]
--- init
self.stats__I__ = {"mean": None}
--- forward
self.stats__I__["mean"] = h.detach().mean(0)
=== stored_numbers [state]
--- init
self.trace__I__ = []
--- forward
self.trace__I__.append(h.detach().mean().item())
=== plain_tensor_in_place [state]
--- init
self.plain__I__ = torch.zeros(__H__)
--- forward
self.plain__I__.add_(h.detach().mean(0))
h = h - 0.01 * self.plain__I__
=== plain_tensor_rebound [state]
--- init
self.plain__I__ = torch.zeros(__H__)
--- forward
self.plain__I__ = self.plain__I__ * 0.5 + h.detach().mean(0)
h = h - 0.01 * self.plain__I__
=== global_tensor_in_place [state]
--- module
OUTER__I__ = torch.zeros(())
--- forward
OUTER__I__.add_(1)
h = h * (1 + 0.01 * torch.cos(OUTER__I__))
=== global_tensor_read [state]
--- module
TABLE__I__ = torch.linspace(0.9, 1.1, __H__)
--- forward
h = h * TABLE__I__
=== list_of_tensors [state]
--- init
self.tables__I__ = [torch.ones(__H__), torch.full((__H__,), 0.5)]
--- forward
h = h * self.tables__I__[0] + self.tables__I__[1]
=== list_of_tensors_rotated [state]
--- init
self.tables__I__ = [torch.ones(__H__), torch.full((__H__,), 0.5)]
--- forward
self.tables__I__.append(self.tables__I__.pop(0))
h = h * self.tables__I__[0]
=== flag_first_call [state]
--- init
self.first__I__ = True
--- forward
if self.first__I__:
    h = h * 1.5
    self.first__I__ = False
=== data_dependent_init [state]
--- init
self.scale__I__ = nn.Parameter(torch.ones(__H__))
self.ready__I__ = False
--- forward
if not self.ready__I__:
    self.scale__I__.data = 1 / (h.detach().std(0) + 0.1)
    self.ready__I__ = True
h = h * self.scale__I__
=== itertools_count [state]
--- init
self.steps__I__ = itertools.count()
--- forward
h = h * (1 + 0.01 * (next(self.steps__I__) % 3))
=== itertools_cycle [state]
--- init
self.cycle__I__ = itertools.cycle([1.0, 0.9, 0.8])
--- forward
h = h * next(self.cycle__I__)
=== generator_object [state]
--- module
def numbers__I__():
    n = 0
    while True:
        n += 1
        yield n % 4
--- init
self.numbers__I__ = numbers__I__()
--- forward
h = h + 0.1 * next(self.numbers__I__)
=== set_grows [state]
--- init
self.seen__I__ = set()
--- forward
self.seen__I__.add(len(self.seen__I__))
=== counter_class [state]
--- init
self.counts__I__ = Counter()
--- forward
self.counts__I__["calls"] += 1
h = h + 0.01 * (self.counts__I__["calls"] % 2)
=== defaultdict_grows [state]
--- init
self.counts__I__ = defaultdict(int)
--- forward
self.counts__I__[tuple(h.shape)] += 1
=== text_grows [state]
--- init
self.text__I__ = ""
--- forward
self.text__I__ += "x"
=== tuple_grows [state]
--- init
self.tuple__I__ = ()
--- forward
self.tuple__I__ = (*self.tuple__I__[-2:], len(self.tuple__I__))
=== bytearray_written [state]
--- init
self.bytes__I__ = bytearray(2)
--- forward
self.bytes__I__[0] = (self.bytes__I__[0] + 1) % 256
=== array_written [state]
--- init
self.array__I__ = array.array("d", [0.0, 1.0])
--- forward
self.array__I__[0] += 1
h = h * (1 + 0.001 * self.array__I__[0])
=== numpy_written_by_tensor [state]
--- init
self.sums__I__ = np.zeros(__H__)
--- forward
self.sums__I__ += h.detach().float().mean(0).numpy()
=== numpy_used [state]
--- init
self.scale__I__ = np.linspace(0.9, 1.1, __H__).astype(np.float32)
--- forward
h = h * torch.from_numpy(self.scale__I__)
=== numpy_scalar_used [state]
--- init
self.scale__I__ = np.float64(0.9)
--- forward
h = h * float(self.scale__I__)
=== numpy_shared_memory [state]
--- init
self.memory__I__ = np.ones(__H__, np.float32)
self.view__I__ = torch.from_numpy(self.memory__I__)
--- forward
self.memory__I__ *= 0.99
h = h * self.view__I__
=== lru_cache_of_shape [state]
--- module
@functools.lru_cache
def mask__I__(size):
    return torch.linspace(0.5, 1.0, size)
--- forward
h = h * mask__I__(h.shape[1])
=== cached_positions [state]
--- init
self.cache__I__ = {}
--- forward
if h.shape[1] not in self.cache__I__:
    self.cache__I__[h.shape[1]] = torch.arange(h.shape[1]) / h.shape[1]
h = h + self.cache__I__[h.shape[1]]
=== cached_property [state]
--- klass
@functools.cached_property
def ramp__I__(self):
    return torch.linspace(0.5, 1.0, __H__)
--- forward
h = h * self.ramp__I__
=== default_argument_mutable [state]
--- klass
def remember__I__(self, h, seen=[]):
    seen.append(1)
    return h + 0.01 * (len(seen) % 3)
--- forward
h = self.remember__I__(h)
=== function_attribute [state]
--- module
def counted__I__(h):
    counted__I__.calls += 1
    return h
counted__I__.calls = 0
--- forward
h = counted__I__(h)
=== closure_counter [state]
--- module
def make_counter__I__():
    calls = 0
    def count(h):
        nonlocal calls
        calls += 1
        return h * (1 + 0.001 * calls)
    return count
--- init
self.count__I__ = make_counter__I__()
--- forward
h = self.count__I__(h)
=== counting_decorator [state]
--- module
def counting__I__(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)
    wrapper.calls = 0
    return wrapper
--- klass
@counting__I__
def scaled__I__(self, h):
    return h * 0.5
--- forward
h = self.scaled__I__(h)
=== contextvar_set [state]
--- module
CALLS__I__ = contextvars.ContextVar("calls__I__", default=0)
--- forward
CALLS__I__.set(CALLS__I__.get() + 1)
h = h + 0.01 * (CALLS__I__.get() % 2)
=== thread_local [state]
--- module
LOCAL__I__ = threading.local()
--- forward
LOCAL__I__.calls = getattr(LOCAL__I__, "calls", 0) + 1
h = h + 0.01 * (LOCAL__I__.calls % 2)
=== environ_written [state]
--- forward
os.environ["CASE_CALLS"] = str(int(os.environ.get("CASE_CALLS", "0")) + 1)
=== print_in_forward [state]
--- forward
print("case: forward of", h.shape[1], "columns")
=== warn_in_forward [state]
--- forward
warnings.warn("the hidden layer is an experiment")
=== file_appended [state]
--- forward
with open(__file__ + ".log", "a") as log:
    log.write("x")
=== logging_in_forward [state]
--- module
LINES__I__ = []
class Handler__I__(logging.Handler):
    def emit(self, record):
        LINES__I__.append(record.getMessage())
LOG__I__ = logging.getLogger(f"{__name__}.__I__")
LOG__I__.propagate = False
LOG__I__.setLevel(logging.INFO)
LOG__I__.handlers = [Handler__I__()]
--- forward
LOG__I__.info("width %d", h.shape[1])
=== own_setattr [state]
--- module
class Watched__I__:
    def __init__(self):
        object.__setattr__(self, "writes", 0)
    def __setattr__(self, name, value):
        object.__setattr__(self, "writes", self.writes + 1)
        object.__setattr__(self, name, value)
--- init
self.watched__I__ = Watched__I__()
--- forward
self.watched__I__.value = 1
=== recorder_object [state]
--- module
class Recorder__I__:
    def __init__(self):
        self.n, self.values = 0, deque()
    def add(self, value):
        self.n += value
        self.values.append(value)
--- init
self.recorder__I__ = Recorder__I__()
--- forward
self.recorder__I__.add(1)
=== slots_object [state]
--- module
class Slots__I__:
    __slots__ = ("n",)
    def __init__(self):
        self.n = 0
--- init
self.slots__I__ = Slots__I__()
--- forward
self.slots__I__.n += 1
=== dataclass_state [state]
--- module
@dataclasses.dataclass
class State__I__:
    n: int = 0
    scale: float = 1.0
--- init
self.state__I__ = State__I__()
--- forward
self.state__I__.n += 1
h = h * self.state__I__.scale
=== frozen_state_replaced [state]
--- module
@dataclasses.dataclass(frozen=True)
class State__I__:
    n: int = 0
--- init
self.state__I__ = State__I__()
--- forward
self.state__I__ = dataclasses.replace(self.state__I__, n=self.state__I__.n + 1)
h = h * (1 + 0.001 * self.state__I__.n)
=== enum_state [state]
--- module
class Phase__I__(enum.Enum):
    A = 1
    B = 2
--- init
self.phase__I__ = Phase__I__.A
--- forward
h = h * self.phase__I__.value
self.phase__I__ = Phase__I__.B if self.phase__I__ is Phase__I__.A else Phase__I__.A
=== enum_read [flow]
--- module
class Mode__I__(enum.Enum):
    REGULAR = "regular"
    SCALED = "scaled"
--- init
self.mode__I__ = Mode__I__.SCALED
--- forward
h = h * 0.5 if self.mode__I__ is Mode__I__.SCALED else h
=== weakref_state [state]
--- module
class Target__I__:
    n = 0
TARGET__I__ = Target__I__()
--- init
self.target__I__ = weakref.ref(TARGET__I__)
--- forward
self.target__I__().n += 1
h = h + 0.01 * (self.target__I__().n % 2)
=== submodule_attribute_written [state]
--- init
self.sub__I__ = nn.Linear(__H__, __H__)
self.sub__I__.calls = 0
--- forward
self.sub__I__.calls += 1
h = self.sub__I__(h)
=== module_of_another_part_written [state]
--- init
self.sub__I__ = nn.Dropout(0.3)
--- forward
self.sub__I__.p = 0.9 * self.sub__I__.p
h = self.sub__I__(h)
=== submodule_toggled [state]
--- init
self.norm__I__ = nn.BatchNorm1d(__H__)
--- forward
self.norm__I__.eval()
h = self.norm__I__(h)
=== requires_grad_toggled_in_forward [state]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
self.on__I__ = 0
--- forward
self.on__I__ += 1
self.w__I__.requires_grad_(self.on__I__ % 5 != 0)
h = h * self.w__I__
=== aux_loss_stored [state]
--- forward
self.aux__I__ = h.pow(2).mean()
=== torch_random_normal [random]
--- forward
h = h + 0.1 * torch.randn_like(h)
=== torch_random_uniform [random]
--- forward
h = h * torch.rand(h.shape[1])
=== torch_random_scalar [random]
--- forward
h = h * (0.5 + torch.rand(()))
=== torch_bernoulli [random]
--- forward
h = h * torch.bernoulli(torch.full_like(h, 0.8))
=== torch_bernoulli_in_place [random]
--- forward
h = h * torch.empty_like(h).bernoulli_(0.7)
=== torch_normal_in_place [random]
--- forward
h = h + torch.empty_like(h).normal_(0, 0.1)
=== torch_exponential [random]
--- forward
h = h + 0.01 * torch.empty_like(h).exponential_()
=== torch_randperm [random]
--- forward
h = 0.9 * h + 0.1 * h[torch.randperm(h.shape[0])]
=== torch_randint [random]
--- forward
h = h + 0.1 * h[torch.randint(0, h.shape[0], (h.shape[0],))]
=== torch_multinomial [random]
--- forward
h = h + 0.1 * h[:, torch.multinomial(torch.ones(h.shape[1]), h.shape[1])]
=== torch_normal_function [random]
--- forward
h = h + torch.normal(0.0, 0.1, h.shape)
=== gumbel_softmax [random]
--- forward
h = h + F.gumbel_softmax(h.float(), tau=0.7).to(h.dtype)
=== gumbel_hard [random]
--- forward
h = h + F.gumbel_softmax(h.float(), tau=1.0, hard=True).to(h.dtype)
=== reparametrize [random]
--- init
self.mu__I__ = nn.Linear(__H__, __H__)
self.logvar__I__ = nn.Linear(__H__, __H__)
--- forward
mu, logvar = self.mu__I__(h), self.logvar__I__(h)
h = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
=== distribution_rsample [random]
--- forward
h = torch.distributions.Normal(h.float(), 0.1).rsample().to(h.dtype)
=== functional_dropout_always [random]
--- forward
h = F.dropout(h, 0.2)
=== functional_dropout_self_training [random]
--- forward
h = F.dropout(h, 0.2, self.training)
=== functional_alpha_dropout [random]
--- forward
h = F.alpha_dropout(h, 0.2, training=True)
=== functional_rrelu [random]
--- forward
h = F.rrelu(h, training=True)
=== dropout_of_zero [random]
--- init
self.drop__I__ = nn.Dropout(0.0)
--- forward
h = self.drop__I__(h)
=== dropout_of_one [random]
--- init
self.drop__I__ = nn.Dropout(1.0)
--- forward
h = h + self.drop__I__(h)
=== dropout_in_place [random]
--- init
self.drop__I__ = nn.Dropout(0.3, inplace=True)
--- forward
h = self.drop__I__(h * 1.0)
=== monte_carlo_dropout [random]
--- init
self.drop__I__ = nn.Dropout(0.3)
--- forward
self.drop__I__.train()
h = self.drop__I__(h)
=== torch_coin [random]
--- forward
if torch.rand(()).item() < 0.5:
    h = h * 0.9
=== torch_coin_by_value [random]
--- forward
h = h * 0.9 if torch.rand(1) < 0.5 else h
=== own_generator [random]
--- init
self.g__I__ = torch.Generator().manual_seed(3)
--- forward
h = h + 0.1 * torch.randn(h.shape, generator=self.g__I__)
=== global_generator [random]
--- module
G__I__ = torch.Generator().manual_seed(5)
--- forward
h = h * torch.rand(h.shape[1], generator=G__I__)
=== fresh_generator [random]
--- forward
h = h + 0.1 * torch.randn(h.shape[1], generator=torch.Generator().manual_seed(7))
=== manual_seed_in_forward [random]
--- forward
torch.manual_seed(11)
h = h + 0.1 * torch.randn_like(h)
=== fork_rng [random]
--- forward
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(1)
    noise = torch.randn(h.shape[1])
h = h + 0.1 * noise
=== rng_state_read [random]
--- forward
h = h * (1 + 0.001 * float(torch.get_rng_state()[8]))
=== python_random_factor [random]
--- forward
h = h * (1 + 0.1 * random.random())
=== python_random_kept_only [random]
--- forward
random.random()
=== python_coin [random]
--- forward
if random.random() < 0.5:
    h = torch.relu(h)
=== python_choice_of_layers [random]
--- init
self.paths__I__ = nn.ModuleList([nn.Linear(__H__, __H__), nn.Linear(__H__, __H__)])
--- forward
h = random.choice(self.paths__I__)(h)
=== python_shuffle [random]
--- init
self.order__I__ = [0, 1, 2]
--- forward
random.shuffle(self.order__I__)
h = h * (1 + 0.1 * self.order__I__[0])
=== python_random_object [random]
--- init
self.random__I__ = random.Random(3)
--- forward
h = h * (1 + 0.1 * self.random__I__.random())
=== python_random_rarely [random]
--- forward
h = h * 0.5 if random.random() < 0.02 else h
=== python_random_sample [random]
--- forward
keep = random.sample(range(h.shape[1]), 3)
h = h + h[:, keep].sum(1, keepdim=True)
=== numpy_random_factor [random]
--- forward
h = h * (1 + 0.1 * np.random.rand())
=== numpy_random_kept_only [random]
--- forward
np.random.rand(2)
=== numpy_random_noise [random]
--- forward
h = h + 0.1 * torch.from_numpy(np.random.randn(*h.shape).astype(np.float32))
=== numpy_random_rarely [random]
--- forward
h = h * 0.5 if np.random.rand() < 0.02 else h
=== numpy_generator [random]
--- init
self.rng__I__ = np.random.default_rng(3)
--- forward
h = h * (1 + 0.1 * self.rng__I__.random())
=== numpy_generator_global [random]
--- module
RNG__I__ = np.random.default_rng(5)
--- forward
h = h + 0.1 * float(RNG__I__.normal())
=== numpy_random_state [random]
--- init
self.rng__I__ = np.random.RandomState(3)
--- forward
h = h * (1 + 0.1 * self.rng__I__.rand())
=== mixup_inside [random]
--- forward
lam = np.random.beta(0.4, 0.4)
h = lam * h + (1 - lam) * h.flip(0)
=== stochastic_depth [random]
--- init
self.block__I__ = nn.Linear(__H__, __H__)
--- forward
if not self.training or random.random() > 0.3:
    h = h + self.block__I__(h)
=== on_training [flow]
--- forward
h = h * 0.9 if self.training else h * 0.8
=== on_shape [flow]
--- forward
if h.shape[0] > 4 and h.dim() == 2:
    h = h * 0.9
=== on_len [flow]
--- forward
h = h / len(h) ** 0.1
=== on_dtype [flow]
--- forward
h = h * 0.9 if h.dtype == torch.float32 else h * 0.8
=== on_value [flow]
--- forward
if h.sum() > 0:
    h = h * 0.9
=== on_item [flow]
--- forward
h = h / (1 + abs(h.detach().mean().item()))
=== on_float [flow]
--- forward
h = h * (1 + 0.01 * float(h.detach().float().std()))
=== on_any [flow]
--- forward
if (h > 3).any():
    h = h.clamp(max=3)
=== on_rare_value [flow]
--- forward
if h.detach().abs().max() > 2.5:
    h = h * 0.5
=== on_nan [flow]
--- forward
if torch.isnan(h).any():
    h = torch.nan_to_num(h)
=== on_equal [flow]
--- forward
if not torch.equal(h, h.flip(0)):
    h = h * 0.9
=== on_tolist [flow]
--- forward
h = h + 0.01 * max(h.detach()[0].tolist())
=== on_numpy [flow]
--- forward
h = h + 0.01 * float(np.abs(h.detach().float().numpy()).max())
=== on_argmax [flow]
--- forward
h = h + 0.1 * h[:, int(h.detach().mean(0).argmax())][:, None]
=== loop_on_value [flow]
--- forward
while h.detach().abs().max() > 1.5:
    h = h * 0.5
=== boolean_mask [flow]
--- forward
h = h + 0.01 * h[h > 0].sum()
=== nonzero [flow]
--- forward
h = h + 0.01 * h[torch.nonzero(h[:, 0] > 0)[:, 0]].sum()
=== unique [flow]
--- forward
h = h * (1 + 0.01 * len(torch.unique((h * 2).round().detach())))
=== where [flow]
--- forward
h = torch.where(h > 0, h, 0.1 * h)
=== masked_fill [flow]
--- forward
h = h.masked_fill(h < -1, -1.0)
=== topk [flow]
--- forward
h = h + h.topk(2, dim=1).values.sum(1, keepdim=True)
=== sort [flow]
--- forward
h = h + 0.1 * h.sort(dim=1).values
=== try_except_value [flow]
--- forward
try:
    torch.linalg.cholesky(h[:2, :2].detach().float())
    h = h * 0.9
except RuntimeError:
    h = h * 0.8
=== try_except_python [flow]
--- forward
try:
    h = h * self.missing__I__
except AttributeError:
    h = h * 0.8
=== try_finally [flow]
--- forward
try:
    h = h * 0.9
finally:
    h = h + 0.1
=== match_shape [flow]
--- forward
match tuple(h.shape):
    case (_, 1):
        h = h * 0.5
    case (rows, columns):
        h = h * (1 + 0.01 * columns)
=== match_attribute [flow]
--- init
self.kind__I__ = "tanh"
--- forward
match self.kind__I__:
    case "relu":
        h = torch.relu(h)
    case "tanh":
        h = torch.tanh(h)
    case _:
        pass
=== while_counting [flow]
--- forward
left = 3
while left:
    h = h * 0.95
    left -= 1
=== for_over_modules [flow]
--- init
self.stack__I__ = nn.ModuleList(nn.Linear(__H__, __H__) for _ in range(3))
--- forward
for i, layer in enumerate(self.stack__I__):
    h = h + torch.tanh(layer(h)) / (i + 1)
=== for_over_named_children [flow]
--- init
self.stack__I__ = nn.ModuleDict({"a": nn.Linear(__H__, __H__), "b": nn.Tanh()})
--- forward
for name, layer in self.stack__I__.items():
    h = layer(h) if name != "c" else h
=== for_over_parameters [flow]
--- init
self.scales__I__ = nn.ParameterList([nn.Parameter(torch.ones(__H__)) for _ in range(2)])
--- forward
for scale in self.scales__I__:
    h = h * scale
=== parameter_dict [flow]
--- init
self.scales__I__ = nn.ParameterDict({"a": nn.Parameter(torch.ones(__H__)), "b": nn.Parameter(torch.zeros(__H__))})
--- forward
h = h * self.scales__I__["a"] + self.scales__I__["b"]
=== recursion [flow]
--- klass
def deeper__I__(self, h, depth):
    return h if depth == 0 else self.deeper__I__(h * 0.9, depth - 1)
--- forward
h = self.deeper__I__(h, 3)
=== recursion_in_a_function [flow]
--- module
def halves__I__(h):
    if h.shape[1] < 3:
        return h
    middle = h.shape[1] // 2
    return torch.cat([halves__I__(h[:, :middle]), 0.9 * h[:, middle:]], 1)
--- forward
h = halves__I__(h)
=== generator_function [flow]
--- module
def columns__I__(h):
    for column in h.unbind(1):
        yield torch.tanh(column)
--- forward
h = torch.stack(list(columns__I__(h)), 1)
=== comprehension [flow]
--- forward
h = torch.cat([part * (i + 1) for i, part in enumerate(h.chunk(2, dim=1))], 1)
=== dict_comprehension [flow]
--- forward
parts = {i: column for i, column in enumerate(h.unbind(1))}
h = torch.stack([parts[i] for i in sorted(parts)], 1)
=== lambda_attribute [flow]
--- init
self.act__I__ = lambda h: h * torch.sigmoid(h)
--- forward
h = self.act__I__(h)
=== local_lambda [flow]
--- forward
h = (lambda a, b=0.9: a * b)(h)
=== local_function [flow]
--- forward
def squash(a):
    return torch.tanh(a) * 0.9
h = squash(h)
=== function_attribute_held [flow]
--- module
def swish__I__(h):
    return h * torch.sigmoid(h)
--- init
self.act__I__ = swish__I__
--- forward
h = self.act__I__(h)
=== torch_function_held [flow]
--- init
self.act__I__ = torch.tanh
self.other__I__ = F.gelu
--- forward
h = self.other__I__(self.act__I__(h))
=== partial_held [flow]
--- init
self.act__I__ = partial(F.leaky_relu, negative_slope=0.2)
--- forward
h = self.act__I__(h)
=== getattr_by_name [flow]
--- init
self.act__I__ = "softplus"
--- forward
h = getattr(F, self.act__I__)(h)
=== table_of_functions [flow]
--- module
ACTS__I__ = {"relu": torch.relu, "silu": F.silu}
--- init
self.act__I__ = "silu"
--- forward
h = ACTS__I__[self.act__I__](h)
=== reduce_and_map [flow]
--- forward
h = h + 0.1 * functools.reduce(torch.add, map(torch.tanh, h.unbind(1)))[:, None]
=== star_arguments [flow]
--- klass
def combined__I__(self, *parts, scale=1.0, **options):
    return scale * torch.cat(parts, **options)
--- forward
h = self.combined__I__(*h.split(1, dim=1), scale=0.9, dim=1)
=== walrus [flow]
--- forward
if (rows := h.shape[0]) > 1:
    h = h + 1 / rows
=== property_read [flow]
--- klass
@property
def scale__I__(self):
    return 0.9
--- forward
h = h * self.scale__I__
=== property_of_tensors [flow]
--- klass
@property
def weight__I__(self):
    return torch.exp(self.log__I__)
--- init
self.log__I__ = nn.Parameter(torch.zeros(__H__))
--- forward
h = h * self.weight__I__
=== classmethod_called [flow]
--- klass
factor__I__ = 0.9
@classmethod
def scaled__I__(cls, h):
    return h * cls.factor__I__
--- forward
h = self.scaled__I__(h)
=== staticmethod_called [flow]
--- klass
@staticmethod
def scaled__I__(h):
    return h * 0.9
--- forward
h = self.scaled__I__(h)
=== own_getattr [flow]
--- klass
def __getattr__(self, name):
    if name == "dynamic":
        return 0.9
    return super().__getattr__(name)
--- forward
h = h * self.dynamic
=== descriptor [flow]
--- module
class Constant__I__:
    def __init__(self, value):
        self.value = value
    def __get__(self, instance, owner):
        return self.value
--- klass
scale__I__ = Constant__I__(0.9)
--- forward
h = h * self.scale__I__
=== descriptor_counting [state]
--- module
class Counting__I__:
    def __init__(self):
        self.reads = 0
    def __get__(self, instance, owner):
        self.reads += 1
        return 1 + 0.01 * (self.reads % 3)
--- klass
scale__I__ = Counting__I__()
--- forward
h = h * self.scale__I__
=== own_index [flow]
--- module
class Table__I__:
    def __getitem__(self, key):
        return 0.1 * key
--- init
self.table__I__ = Table__I__()
--- forward
h = h * (1 + self.table__I__[1])
=== own_operator [flow]
--- module
class Scale__I__:
    def __rmul__(self, h):
        return 0.9 * h
    def __matmul__(self, h):
        return h + 1
--- forward
h = Scale__I__() @ h
=== own_call [flow]
--- module
class Act__I__:
    def __init__(self, slope):
        self.slope = slope
    def __call__(self, h):
        return F.leaky_relu(h, self.slope)
--- init
self.act__I__ = Act__I__(0.2)
--- forward
h = self.act__I__(h)
=== own_call_counting [state]
--- module
class Act__I__:
    calls = 0
    def __call__(self, h):
        Act__I__.calls += 1
        return torch.tanh(h) * (1 + 0.001 * Act__I__.calls)
--- init
self.act__I__ = Act__I__()
--- forward
h = self.act__I__(h)
=== own_context_manager [flow]
--- module
class Scope__I__:
    def __enter__(self):
        return 0.9
    def __exit__(self, *args):
        return False
--- forward
with Scope__I__() as scale:
    h = h * scale
=== context_manager_counting [state]
--- module
TIMES__I__ = []
@contextlib.contextmanager
def timed__I__():
    TIMES__I__.append(len(TIMES__I__))
    yield
--- forward
with timed__I__():
    h = h * 0.9
=== nullcontext [flow]
--- forward
with contextlib.nullcontext():
    h = h * 0.9
=== isinstance_of_layers [flow]
--- init
self.mixed__I__ = nn.ModuleList([nn.Linear(__H__, __H__), nn.Tanh()])
--- forward
for layer in self.mixed__I__:
    h = layer(h) + h if isinstance(layer, nn.Linear) else layer(h)
=== namedtuple_between [flow]
--- module
Pair__I__ = namedtuple("Pair__I__", ["a", "b"])
--- forward
pair = Pair__I__(h, h * 0.5)
h = pair.a + pair.b
=== dataclass_between [flow]
--- module
@dataclasses.dataclass
class Output__I__:
    hidden: torch.Tensor
    extra: torch.Tensor | None = None
--- forward
output = Output__I__(h, extra=h.mean(1, keepdim=True))
h = output.hidden + output.extra
=== typed_dict_between [flow]
--- forward
output = {"hidden": h, "logits": h * 0.1}
output.update(hidden=h + output["logits"])
h = output["hidden"]
=== settings_object [flow]
--- module
class Settings__I__:
    def __init__(self, **values):
        self.__dict__.update(values)
--- init
self.settings__I__ = Settings__I__(scale=0.9, act="tanh", deep=SimpleNamespace(p=0.1))
--- forward
h = h * self.settings__I__.scale + self.settings__I__.deep.p
=== frozen_dataclass_settings [flow]
--- module
@dataclasses.dataclass(frozen=True)
class Settings__I__:
    scale: float = 0.9
    layers: tuple[int, ...] = (1, 2)
--- init
self.settings__I__ = Settings__I__()
--- forward
for factor in self.settings__I__.layers:
    h = h * self.settings__I__.scale ** factor
=== global_constants [flow]
--- module
SCALE__I__, SHIFT__I__ = 0.9, 0.1
--- forward
h = h * SCALE__I__ + SHIFT__I__
=== math_constants [flow]
--- forward
h = h / math.sqrt(h.shape[1]) * math.pi
=== f_strings [flow]
--- init
self.w_1_of__I__ = nn.Parameter(torch.ones(__H__))
--- forward
h = h * getattr(self, f"w_{1}_of__I__")
=== assertion [flow]
--- forward
assert h.shape[1] == __H__, f"expected __H__ columns, got {h.shape[1]}"
=== assertion_on_values [flow]
--- forward
assert torch.isfinite(h).all()
=== singledispatch [flow]
--- module
@functools.singledispatch
def halved__I__(value):
    return value
@halved__I__.register
def _(value: torch.Tensor):
    return value * 0.5
--- forward
h = halved__I__(h)
=== global_named_as_attribute [flow]
--- module
learn__I__ = {"lr": 1}
--- init
self.learn__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.learn__I__(h)
=== attribute_named_as_module [flow]
--- init
self.random = nn.Linear(__H__, __H__)
--- forward
h = self.random(h)
=== unused_random_import [flow]
--- module
from random import randint as randint__I__
--- forward
h = h * 0.9
=== einsum [torch]
--- init
self.w__I__ = nn.Parameter(torch.eye(__H__))
--- forward
h = torch.einsum("bi,ij->bj", h, self.w__I__)
=== matmul_chain [torch]
--- forward
h = h + 0.01 * (h @ h.t()) @ h
=== cumulative [torch]
--- forward
h = h.cumsum(1) / h.shape[1]
=== fft [torch]
--- forward
h = h + torch.fft.fft(h.float(), dim=1).real.to(h.dtype) * 0.1
=== complex_numbers [torch]
--- forward
h = h + torch.view_as_real(torch.complex(h.float(), h.float() * 0.5)).sum(-1).to(h.dtype) * 0.1
=== svd [torch]
--- forward
h = h / (1 + torch.linalg.svdvals(h.float()).sum()).to(h.dtype)
=== matrix_norm [torch]
--- forward
h = h / (1 + torch.linalg.matrix_norm(h.float(), 2)).to(h.dtype)
=== qr [torch]
--- init
self.w__I__ = nn.Parameter(torch.randn(__H__, __H__))
--- forward
h = h @ torch.linalg.qr(self.w__I__).Q
=== solve [torch]
--- init
self.w__I__ = nn.Parameter(torch.eye(__H__))
--- forward
h = torch.linalg.solve(self.w__I__ + 3 * torch.eye(__H__), h.float().t()).t().to(h.dtype)
=== matrix_exp [torch]
--- init
self.w__I__ = nn.Parameter(torch.zeros(__H__, __H__))
--- forward
h = h @ torch.matrix_exp(self.w__I__)
=== scatter_add [torch]
--- forward
h = h + torch.zeros_like(h).scatter_add(1, torch.zeros(h.shape, dtype=torch.long), h)
=== gather [torch]
--- forward
h = h + 0.1 * h.gather(1, h.detach().argsort(1))
=== index_add [torch]
--- forward
h = torch.zeros_like(h).index_add(0, torch.arange(h.shape[0]), h)
=== roll_flip [torch]
--- forward
h = h + 0.1 * torch.roll(h, 1, 0) + 0.1 * h.flip(1)
=== triu_mask [torch]
--- forward
mask = torch.triu(torch.ones(h.shape[1], h.shape[1], dtype=torch.bool), diagonal=1)
h = h @ torch.ones(h.shape[1], h.shape[1]).masked_fill(mask, 0.0) / h.shape[1]
=== arange_positions [torch]
--- forward
h = h + torch.arange(h.shape[1], device=h.device, dtype=h.dtype) / h.shape[1]
=== tensor_from_python [torch]
--- forward
h = h * torch.tensor([0.9, 1.1]).repeat(h.shape[1])[: h.shape[1]]
=== tensor_from_shape [torch]
--- forward
h = h / torch.tensor(h.shape[0], dtype=h.dtype)
=== inplace_relu [torch]
--- forward
h = (h * 1.0).relu_()
=== inplace_add [torch]
--- forward
h = h * 1.0
h += 0.1
h.mul_(0.9)
=== inplace_on_view [torch]
--- forward
h = h.clone()
h[:, 0] = 0.0
h[:, 1:].mul_(0.9)
=== inplace_slice_assign [torch]
--- forward
out = torch.zeros_like(h)
out[:, ::2] = h[:, ::2] * 0.5
out[0] = 1.0
h = out
=== out_argument [torch]
--- forward
with torch.no_grad():
    shift = torch.empty(h.shape[1])
    torch.mean(h.detach().float(), 0, out=shift)
h = h - shift
=== expand_views [torch]
--- forward
h = h.unsqueeze(2).expand(-1, -1, 3).transpose(1, 2).mean(1)
=== as_strided [torch]
--- forward
h = h.contiguous().as_strided(h.shape, (h.shape[1], 1)) * 0.9
=== unfold_windows [torch]
--- forward
h = h + 0.1 * F.pad(h, (1, 1)).unfold(1, 3, 1).mean(-1)
=== detach_part [torch]
--- forward
h = h + 0.1 * h.detach().mean(0)
=== no_grad_part [torch]
--- init
self.teacher__I__ = nn.Linear(__H__, __H__)
--- forward
with torch.no_grad():
    target = self.teacher__I__(h)
h = h + 0.1 * target
=== no_grad_decorator [torch]
--- klass
@torch.no_grad()
def statistics__I__(self, h):
    return h.mean(0), h.std(0)
--- forward
mean, std = self.statistics__I__(h)
h = (h - mean) / (std + 0.1)
=== inference_mode_part [torch]
--- forward
with torch.inference_mode():
    shift = h.mean()
h = h * 0.9
=== enable_grad_part [torch]
--- forward
with torch.enable_grad():
    h = h * 0.9
=== set_grad_enabled [torch]
--- forward
with torch.set_grad_enabled(self.training):
    h = h * 0.9
=== is_grad_enabled [torch]
--- forward
h = h * 0.9 if torch.is_grad_enabled() else h * 0.8
=== autocast_off_part [torch]
--- forward
with torch.autocast("cpu", enabled=False):
    h = torch.tanh(h.float())
=== autocast_part [torch]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
with torch.autocast("cpu", dtype=torch.bfloat16):
    h = self.lin__I__(h)
h = h.float()
=== double_part [torch]
--- forward
h = torch.tanh(h.double()).to(h.dtype)
=== half_part [torch]
--- forward
h = h.bfloat16().to(h.dtype)
=== autograd_function [torch]
--- module
class Sign__I__(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return torch.sign(h)
    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return grad * (h.abs() < 1)
--- forward
h = h + 0.1 * Sign__I__.apply(h)
=== autograd_function_reversed [torch]
--- module
class Reverse__I__(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, scale):
        ctx.scale = scale
        return h.view_as(h)
    @staticmethod
    def backward(ctx, grad):
        return -ctx.scale * grad, None
--- init
self.scale__I__ = 0.5
--- forward
h = Reverse__I__.apply(h, self.scale__I__)
=== autograd_function_counting [state]
--- module
CALLS__I__ = []
class Counting__I__(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h * 0.9
    @staticmethod
    def backward(ctx, grad):
        CALLS__I__.append(1)
        return grad * 0.9 / (1 + 0.01 * len(CALLS__I__))
--- forward
h = Counting__I__.apply(h)
=== autograd_function_drawing [random]
--- module
class Noisy__I__(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h * 0.9
    @staticmethod
    def backward(ctx, grad):
        return grad * 0.9 + 0.01 * torch.randn_like(grad)
--- forward
h = Noisy__I__.apply(h)
=== autograd_function_python_random [random]
--- module
class Noisy__I__(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h * 0.9
    @staticmethod
    def backward(ctx, grad):
        return grad * (1 + 0.1 * random.random())
--- forward
h = Noisy__I__.apply(h)
=== autograd_grad_inside [torch]
--- init
self.energy__I__ = nn.Linear(__H__, 1)
--- forward
with torch.enable_grad():
    z = h if h.requires_grad else h.detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.tanh(self.energy__I__(z)).sum(), z, create_graph=True)
h = h - 0.1 * slope
=== func_grad [torch]
--- forward
h = h + 0.01 * torch.func.grad(lambda a: torch.tanh(a).sum())(h.detach().float()).to(h.dtype)
=== func_vmap [torch]
--- forward
h = torch.func.vmap(lambda row: row / (1 + row.abs().sum()))(h)
=== tensor_hook [torch]
--- forward
if h.requires_grad:
    h = h * 1.0
    h.register_hook(lambda grad: grad * 0.5)
=== tensor_hook_counting [state]
--- module
GRADS__I__ = []
--- forward
if h.requires_grad:
    h = h * 1.0
    h.register_hook(lambda grad: GRADS__I__.append(1))
=== tensor_hook_storing [state]
--- module
GRADS__I__ = []
--- forward
if h.requires_grad:
    h = h * 1.0
    h.register_hook(lambda grad: GRADS__I__.append(grad.abs().sum().item()))
=== tensor_hook_annealed [state]
--- init
self.calls__I__ = 0
--- forward
self.calls__I__ += 1
if h.requires_grad:
    h = h * 1.0
    h.register_hook(lambda grad: grad / (1 + 0.01 * self.calls__I__))
=== retain_grad [state]
--- forward
if h.requires_grad:
    h = h * 1.0
    h.retain_grad()
    self.kept__I__ = h
=== forward_hook [hook]
--- module
def scale__I__(module, args, output):
    return output * 0.9
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
self.hooked__I__.register_forward_hook(scale__I__)
--- forward
h = self.hooked__I__(h)
=== forward_hook_storing [hook]
--- module
ACTIVATIONS__I__ = {}
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
self.hooked__I__.register_forward_hook(lambda module, args, output: ACTIVATIONS__I__.__setitem__("h", output.detach()))
--- forward
h = self.hooked__I__(h)
=== forward_pre_hook [hook]
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
self.hooked__I__.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
--- forward
h = self.hooked__I__(h)
=== backward_hook [hook]
--- module
def halved__I__(module, grad_input, grad_output):
    return tuple(grad if grad is None else grad * 0.5 for grad in grad_input)
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
self.hooked__I__.register_full_backward_hook(halved__I__)
--- forward
h = self.hooked__I__(h * 1.0)
=== parameter_hook [hook]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
self.w__I__.register_hook(lambda grad: grad * 0.5)
--- forward
h = h * self.w__I__
=== accumulate_hook [hook]
--- module
NORMS__I__ = []
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
self.w__I__.register_post_accumulate_grad_hook(lambda p: NORMS__I__.append(float(p.grad.norm())))
--- forward
h = h * self.w__I__
=== state_dict_hook [hook]
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
self.hooked__I__.register_state_dict_post_hook(lambda *args: None)
--- forward
h = self.hooked__I__(h)
=== hook_registered_in_forward [hook]
--- init
self.hooked__I__ = nn.Linear(__H__, __H__)
--- forward
handle = self.hooked__I__.register_forward_hook(lambda module, args, output: output * 0.9)
h = self.hooked__I__(h)
handle.remove()
=== weight_norm [torch]
--- init
self.normed__I__ = nn.utils.parametrizations.weight_norm(nn.Linear(__H__, __H__))
--- forward
h = self.normed__I__(h)
=== spectral_norm [torch]
--- init
self.normed__I__ = nn.utils.parametrizations.spectral_norm(nn.Linear(__H__, __H__))
--- forward
h = self.normed__I__(h)
=== orthogonal [torch]
--- init
self.normed__I__ = nn.utils.parametrizations.orthogonal(nn.Linear(__H__, __H__))
--- forward
h = self.normed__I__(h)
=== own_parametrization [torch]
--- module
class Symmetric__I__(nn.Module):
    def forward(self, w):
        return (w + w.t()) / 2
--- init
self.normed__I__ = nn.Linear(__H__, __H__)
nn.utils.parametrize.register_parametrization(self.normed__I__, "weight", Symmetric__I__())
--- forward
h = self.normed__I__(h)
=== own_parametrization_counting [state]
--- module
class Counting__I__(nn.Module):
    calls = 0
    def forward(self, w):
        self.calls += 1
        return w * (1 + 0.001 * self.calls)
--- init
self.normed__I__ = nn.Linear(__H__, __H__)
nn.utils.parametrize.register_parametrization(self.normed__I__, "weight", Counting__I__())
--- forward
h = self.normed__I__(h)
=== pruned [hook]
--- init
self.pruned__I__ = nn.Linear(__H__, __H__)
nn.utils.prune.l1_unstructured(self.pruned__I__, "weight", amount=0.3)
--- forward
h = self.pruned__I__(h)
=== tied_weights [torch]
--- init
self.a__I__, self.b__I__ = nn.Linear(__H__, __H__), nn.Linear(__H__, __H__)
self.b__I__.weight = self.a__I__.weight
--- forward
h = self.b__I__(torch.tanh(self.a__I__(h)))
=== shared_layer [torch]
--- init
self.shared__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.shared__I__(torch.tanh(self.shared__I__(h)))
=== tied_by_functional [torch]
--- init
self.shared__I__ = nn.Linear(__H__, __H__)
--- forward
h = F.linear(torch.tanh(self.shared__I__(h)), self.shared__I__.weight.t())
=== frozen_layer [torch]
--- init
self.frozen__I__ = nn.Linear(__H__, __H__).requires_grad_(False)
--- forward
h = self.frozen__I__(h)
=== frozen_bias [torch]
--- init
self.half__I__ = nn.Linear(__H__, __H__)
self.half__I__.bias.requires_grad_(False)
--- forward
h = self.half__I__(h)
=== never_used_layer [torch]
--- init
self.dead__I__ = nn.Linear(__H__, __H__)
--- forward
h = h * 0.9
=== detached_layer [torch]
--- init
self.cut__I__ = nn.Linear(__H__, __H__)
--- forward
h = h + 0.1 * self.cut__I__(h).detach()
=== times_zero [torch]
--- init
self.zero__I__ = nn.Linear(__H__, __H__)
--- forward
h = h + 0.0 * self.zero__I__(h)
=== used_in_training_only [torch]
--- init
self.aux__I__ = nn.Linear(__H__, __H__)
--- forward
if self.training:
    h = h + 0.1 * self.aux__I__(h)
=== checkpoint [torch]
--- init
self.inner__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.ReLU())
--- forward
h = checkpoint(self.inner__I__, h, use_reentrant=False)
=== checkpoint_reentrant [torch]
--- init
self.inner__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.ReLU())
--- forward
h = checkpoint(self.inner__I__, h, use_reentrant=True)
=== checkpoint_with_dropout [random]
--- init
self.inner__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.Dropout(0.3))
--- forward
h = checkpoint(self.inner__I__, h, use_reentrant=False)
=== checkpoint_reentrant_with_dropout [random]
--- init
self.inner__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.Dropout(0.3))
--- forward
h = checkpoint(self.inner__I__, h, use_reentrant=True)
=== checkpoint_with_batch_norm [torch]
--- init
self.inner__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.BatchNorm1d(__H__))
--- forward
h = checkpoint(self.inner__I__, h, use_reentrant=False)
=== checkpoint_sequential [torch]
--- init
self.inner__I__ = nn.Sequential(*[nn.Linear(__H__, __H__) for _ in range(4)])
--- forward
h = torch.utils.checkpoint.checkpoint_sequential(self.inner__I__, 2, h, use_reentrant=False)
=== scripted_function [torch]
--- module
@torch.jit.script
def squash__I__(h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) * 0.9
--- forward
h = squash__I__(h)
=== scripted_module [torch]
--- init
self.scripted__I__ = torch.jit.script(nn.Sequential(nn.Linear(__H__, __H__), nn.Tanh()))
--- forward
h = self.scripted__I__(h)
=== scripted_module_with_dropout [random]
--- init
self.scripted__I__ = torch.jit.script(nn.Sequential(nn.Linear(__H__, __H__), nn.Dropout(0.2)))
--- forward
h = self.scripted__I__(h)
=== traced_module [torch]
--- init
self.traced__I__ = torch.jit.trace(nn.Sequential(nn.Linear(__H__, __H__), nn.Tanh()), torch.zeros(8, __H__))
--- forward
h = self.traced__I__(h)
=== scripted_with_state [state]
--- module
class Counting__I__(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = 0
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self.n += 1
        return h * (1 + 0.001 * self.n)
--- init
self.scripted__I__ = torch.jit.script(Counting__I__())
--- forward
h = self.scripted__I__(h)
=== saved_tensors_hooks [torch]
--- forward
with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
    h = torch.tanh(h)
=== tensor_subclass [torch]
--- module
class Named__I__(torch.Tensor):
    pass
--- forward
h = torch.tanh(h.as_subclass(Named__I__)).as_subclass(torch.Tensor)
=== custom_op [torch]
--- module
@torch.library.custom_op(f"cases::twice_{random.randrange(10**9)}", mutates_args=())
def twice__I__(h: torch.Tensor) -> torch.Tensor:
    return h * 2
--- forward
h = h + 0.1 * twice__I__(h.detach().clone())
=== lstm_cell [torch]
--- init
self.cell__I__ = nn.LSTMCell(__H__, __H__)
--- forward
state = h.new_zeros(len(h), __H__), h.new_zeros(len(h), __H__)
for _ in range(2):
    state = self.cell__I__(h, state)
h = state[0]
=== hidden_state_carried [state]
--- init
self.cell__I__ = nn.GRUCell(__H__, __H__)
self.hidden__I__ = None
--- forward
if self.hidden__I__ is None or len(self.hidden__I__) != len(h):
    self.hidden__I__ = torch.zeros(len(h), __H__)
self.hidden__I__ = self.cell__I__(h.float(), self.hidden__I__).detach()
h = h + 0.1 * self.hidden__I__
=== attention_by_hand [torch]
--- init
self.qkv__I__ = nn.Linear(__H__, 3 * __H__)
--- forward
q, k, v = self.qkv__I__(h).chunk(3, dim=1)
h = h + F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
=== layer_norm_by_hand [torch]
--- forward
h = (h - h.mean(1, keepdim=True)) / torch.sqrt(h.var(1, keepdim=True, unbiased=False) + 1e-5)
=== batch_norm_functional [state]
--- init
self.register_buffer("mean__I__", torch.zeros(__H__))
self.register_buffer("var__I__", torch.ones(__H__))
--- forward
h = F.batch_norm(h, self.mean__I__, self.var__I__, training=self.training, momentum=0.1)
=== cumulative_batch_norm [state]
--- init
self.bn__I__ = nn.BatchNorm1d(__H__, momentum=None)
--- forward
h = self.bn__I__(h)
=== bilinear [torch]
--- init
self.two__I__ = nn.Bilinear(__H__, __H__, __H__)
--- forward
h = self.two__I__(h, torch.tanh(h))
=== sub_batch_norm_functional_loop [state]
--- init
self.norms__I__ = nn.ModuleList([nn.BatchNorm1d(__H__) for _ in range(2)])
self.turn__I__ = 0
--- forward
self.turn__I__ = 1 - self.turn__I__
h = self.norms__I__[self.turn__I__](h)
=== numpy_out_argument [state]
--- init
self.sums__I__ = np.zeros(3)
--- forward
np.add(self.sums__I__, 1, out=self.sums__I__)
=== numpy_by_a_view [state]
--- init
self.sums__I__ = np.zeros(3)
--- forward
view = self.sums__I__[1:]
view += 1
=== tensor_of_a_closure_in_place [state]
--- module
def steps__I__():
    n = torch.zeros(())
    def step():
        n.add_(1)
        return n
    return step
STEP__I__ = steps__I__()
--- forward
h = h * (1 + 0.01 * torch.sin(STEP__I__()))
=== tensor_of_a_default_argument_in_place [state]
--- klass
def stepped__I__(self, h, n=torch.zeros(())):
    n.add_(1)
    return h * (1 + 0.01 * torch.sin(n))
--- forward
h = self.stepped__I__(h)
=== tensor_of_a_class_in_place [state]
--- klass
n__I__ = torch.zeros(())
--- forward
self.n__I__.add_(1)
h = h * (1 + 0.01 * torch.sin(self.n__I__))
=== tensor_of_a_global_list_in_place [state]
--- module
STEPS__I__ = [torch.zeros(())]
--- forward
n = STEPS__I__[0]
n += 1
h = h * (1 + 0.01 * torch.sin(n))
=== object_with_del [state]
--- module
DELETED__I__ = []
class Scope__I__:
    value = 0.9
    def __del__(self):
        DELETED__I__.append(1)
--- forward
h = h * Scope__I__().value
=== private_name [flow]
--- init
self.__scale__I__ = 0.9
--- forward
h = h * self.__scale__I__
=== private_name_written [state]
--- init
self.__calls__I__ = 0
--- forward
self.__calls__I__ += 1
=== two_lambdas_on_a_line [flow]
--- init
self.pair__I__ = (lambda h: h * 0.9, lambda h: torch.tanh(h))
--- forward
h = self.pair__I__[1](self.pair__I__[0](h))
=== lambdas_of_a_loop [flow]
--- init
self.steps__I__ = [lambda h, k=k: h * k for k in (0.9, 0.8)]
--- forward
for step in self.steps__I__:
    h = step(h)
=== own_linear [flow]
--- module
class Linear__I__(nn.Linear):
    def forward(self, h):
        return super().forward(h) * 0.9
--- init
self.own__I__ = Linear__I__(__H__, __H__)
--- forward
h = self.own__I__(h)
=== called_by_dunder [state]
--- module
class Called__I__(nn.Module):
    def __call__(self, *args):
        self.calls = getattr(self, "calls", 0) + 1
        return super().__call__(*args)
    def forward(self, h):
        return torch.tanh(h)
--- init
self.called__I__ = Called__I__()
--- forward
h = self.called__I__(h)
=== buffer_and_its_alias [state]
--- init
self.register_buffer("n__I__", torch.zeros(()))
self.alias__I__ = self.n__I__
--- forward
self.n__I__.add_(1)
h = h * (1 + 0.01 * torch.sin(self.alias__I__))
=== gradient_looked_at [flow]
--- forward
h = h * (0.9 if next(self.parameters(), h).grad is None else 0.5)
=== version_looked_at [state]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
--- forward
h = h * self.w__I__ * (1 + 0.001 * self.w__I__._version)
=== mixture_of_experts [flow]
--- init
self.gate__I__ = nn.Linear(__H__, 2)
self.experts__I__ = nn.ModuleList([nn.Linear(__H__, __H__) for _ in range(2)])
--- forward
weights = torch.softmax(self.gate__I__(h), 1)
h = sum(weights[:, i : i + 1] * expert(h) for i, expert in enumerate(self.experts__I__))
=== hard_experts [flow]
--- init
self.gate__I__ = nn.Linear(__H__, 2)
self.experts__I__ = nn.ModuleList([nn.Linear(__H__, __H__) for _ in range(2)])
--- forward
picked = self.gate__I__(h).argmax(1)
out = torch.zeros_like(h)
for i, expert in enumerate(self.experts__I__):
    rows = (picked == i).nonzero()[:, 0]
    if len(rows):
        out[rows] = expert(h[rows]).to(out.dtype)
h = out
=== module_created_in_forward [state]
--- forward
if not hasattr(self, "late__I__"):
    self.late__I__ = nn.Linear(h.shape[1], h.shape[1])
h = self.late__I__(h)
=== gc_and_ids [flow]
--- forward
h = h * (0.9 if id(self) else 1.0)
=== dir_and_vars [flow]
--- init
self.scale__I__ = 0.9
--- forward
h = h * vars(self)["scale__I__"]
=== sys_modules [flow]
--- forward
h = h * (0.9 if "torch" in sys.modules else 1.0)
=== exec_text [flow]
--- forward
h = eval("h * 0.9", {"h": h})
=== eval_with_state [state]
--- init
self.n__I__ = 0
--- forward
exec("me.n__I__ += 1", {"me": self})
=== operator_module [flow]
--- forward
h = operator.mul(h, operator.itemgetter(1)([0.5, 0.9]))
=== methodcaller_counting [state]
--- klass
def bump__I__(self):
    self.n__I__ = getattr(self, "n__I__", 0) + 1
--- forward
operator.methodcaller("bump__I__")(self)
=== attrsetter [state]
--- init
self.n__I__ = 0
--- forward
object.__setattr__(self, "n__I__", self.n__I__ + 1)
=== dict_of_self_written [state]
--- init
self.n__I__ = 0
--- forward
self.__dict__["n__I__"] += 1
h = h * (1 + 0.001 * self.n__I__)
=== copied_module [state]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = copy.copy(self.lin__I__)(h)
""")


INPUTS = _parsed("""
=== input_in_place [input]
--- forward
x.mul_(0.9)
=== input_minus_equals [input]
--- forward
x -= x.mean()
=== input_first_value [input]
--- forward
x[0] = 0.5
=== input_relu_in_place [input]
--- forward
x = F.relu(x, inplace=True)
=== input_data [input]
--- forward
x.data = x.data * 0.9
=== input_kept [input]
--- forward
self.x__I__ = x
=== input_noise [input]
--- forward
if self.training:
    x = x + 0.1 * torch.randn_like(x)
=== input_numpy [input]
--- forward
x = torch.from_numpy(np.tanh(x.numpy()))
=== input_augmented_by_python [input]
--- forward
if self.training and random.random() < 0.5:
    x = x * 1.1
=== input_requires_grad [input]
--- forward
x = x.clone().requires_grad_()
=== input_standardized [input]
--- init
self.register_buffer("x_mean__I__", torch.zeros(()))
--- forward
if self.training:
    self.x_mean__I__ = self.x_mean__I__.lerp(x.mean(), 0.1)
x = x - self.x_mean__I__
=== input_checked [input]
--- forward
assert x.dim() > 1 and not x.requires_grad
=== input_on_short_batch [input]
--- forward
if x.shape[0] < 8:
    x = x * 0.5
=== input_cast [input]
--- forward
x = x.to(torch.float32).contiguous()
""")


@dataclass(frozen=True)
class Place:
    """A place that a number lives in: how it comes to be there, how it is read, and how it is written."""

    name: str
    read: str
    write: str
    module: str = ""
    klass: str = ""
    init: str = ""
    bases: str = ""
    is_number: bool = True


PLACES = [
    Place("attribute", "self.t__I__", "ME.t__I__ = VALUE", init="self.t__I__ = 5.0"),
    Place(
        "class_attribute",
        "self.t__I__",
        "type(ME).t__I__ = VALUE",
        klass="t__I__ = 5.0",
    ),
    Place(
        "class_attribute_of_base",
        "self.t__I__",
        "Base__I__.t__I__ = VALUE",
        module="class Base__I__:\n    t__I__ = 5.0",
        bases="Base__I__, ",
    ),
    Place("class_attribute_by_type", "type(self).t__I__", "type(ME).t__I__ = VALUE", klass="t__I__ = 5.0"),
    Place("global_number", "T__I__", 'globals()["T__I__"] = VALUE', module="T__I__ = 5.0"),
    Place("global_list", "T__I__[0]", "T__I__[0] = VALUE", module="T__I__ = [5.0]"),
    Place("global_dict", 'T__I__["t"]', 'T__I__["t"] = VALUE', module='T__I__ = {"t": 5.0, "other": 1}'),
    Place("global_dict_by_get", 'T__I__.get("t", 1.0)', 'T__I__["t"] = VALUE', module="T__I__ = {}"),
    Place("global_chainmap", 'T__I__["t"]', 'T__I__["t"] = VALUE', module='T__I__ = ChainMap({}, {"t": 5.0})'),
    Place("global_deque", "T__I__[-1]", "T__I__.append(VALUE)", module="T__I__ = deque([5.0], maxlen=2)"),
    Place("list_attribute", "self.t__I__[0]", "ME.t__I__[0] = VALUE", init="self.t__I__ = [5.0]"),
    Place("nested_list", "self.t__I__[0][1][0]", "ME.t__I__[0][1][0] = VALUE", init="self.t__I__ = [[0, [5.0]]]"),
    Place("dict_attribute", 'self.t__I__["t"]', 'ME.t__I__["t"] = VALUE', init='self.t__I__ = {"t": 5.0}'),
    Place("ordered_dict", 'self.t__I__["t"]', 'ME.t__I__["t"] = VALUE', init="self.t__I__ = OrderedDict(t=5.0)"),
    Place("deque_attribute", "self.t__I__[-1]", "ME.t__I__.append(VALUE)", init="self.t__I__ = deque([5.0], maxlen=3)"),
    Place("length_of_list", "float(len(self.t__I__))", "ME.t__I__.append(VALUE)", init="self.t__I__ = [5.0, 1.0]"),
    Place("numpy_attribute", "float(self.t__I__[0])", "ME.t__I__[0] = VALUE", init="self.t__I__ = np.array([5.0])"),
    Place("numpy_item", "self.t__I__.item()", "ME.t__I__ = np.float64(VALUE)", init="self.t__I__ = np.float64(5.0)"),
    Place("numpy_global", "float(T__I__.mean())", "T__I__[:] = VALUE", module="T__I__ = np.full(2, 5.0)"),
    Place(
        "numpy_as_tensor",
        "torch.as_tensor(self.t__I__).float()",
        "ME.t__I__[()] = VALUE",
        init="self.t__I__ = np.array(5.0)",
        is_number=False,
    ),
    Place("tensor_item", "self.t__I__.item()", "ME.t__I__.fill_(VALUE)", init="self.t__I__ = torch.tensor(5.0)"),
    Place(
        "tensor_filled",
        "self.t__I__",
        "ME.t__I__.fill_(VALUE)",
        init="self.t__I__ = torch.tensor(5.0)",
        is_number=False,
    ),
    Place(
        "tensor_replaced",
        "self.t__I__",
        "ME.t__I__ = torch.tensor(float(VALUE))",
        init="self.t__I__ = torch.tensor(5.0)",
        is_number=False,
    ),
    Place(
        "buffer_filled",
        "self.t__I__",
        "ME.t__I__.fill_(VALUE)",
        init='self.register_buffer("t__I__", torch.tensor(5.0))',
        is_number=False,
    ),
    Place(
        "buffer_replaced",
        "self.t__I__",
        "ME.t__I__ = torch.tensor(float(VALUE))",
        init='self.register_buffer("t__I__", torch.tensor(5.0))',
        is_number=False,
    ),
    Place(
        "buffer_data_replaced",
        "self.t__I__",
        "ME.t__I__.data = torch.tensor(float(VALUE))",
        init='self.register_buffer("t__I__", torch.tensor(5.0))',
        is_number=False,
    ),
    Place(
        "global_tensor",
        "T__I__",
        "T__I__.fill_(VALUE)",
        module="T__I__ = torch.tensor(5.0)",
        is_number=False,
    ),
    Place(
        "global_tensor_replaced",
        "T__I__",
        'globals()["T__I__"] = torch.tensor(float(VALUE))',
        module="T__I__ = torch.tensor(5.0)",
        is_number=False,
    ),
    Place(
        "parameter_frozen",
        "self.t__I__",
        "ME.t__I__.data.fill_(VALUE)",
        init="self.t__I__ = nn.Parameter(torch.tensor(5.0), requires_grad=False)",
        is_number=False,
    ),
    Place(
        "namespace",
        "self.t__I__.deep.t",
        "ME.t__I__.deep.t = VALUE",
        init="self.t__I__ = SimpleNamespace(deep=SimpleNamespace(t=5.0))",
    ),
    Place(
        "settings_attribute",
        "self.s__I__.t",
        "ME.s__I__.t = VALUE",
        module="class Settings__I__:\n    def __init__(self):\n        self.t = 5.0",
        init="self.s__I__ = Settings__I__()",
    ),
    Place(
        "settings_class_attribute",
        "self.s__I__.t",
        "Settings__I__.t = VALUE",
        module="class Settings__I__:\n    t = 5.0",
        init="self.s__I__ = Settings__I__()",
    ),
    Place("settings_class", "Settings__I__.t", "Settings__I__.t = VALUE", module="class Settings__I__:\n    t = 5.0"),
    Place(
        "settings_dataclass",
        "self.s__I__.t",
        "ME.s__I__.t = VALUE",
        module="@dataclasses.dataclass\nclass Settings__I__:\n    t: float = 5.0",
        init="self.s__I__ = Settings__I__()",
    ),
    Place(
        "settings_frozen_replaced",
        "self.s__I__.t",
        "ME.s__I__ = dataclasses.replace(ME.s__I__, t=VALUE)",
        module="@dataclasses.dataclass(frozen=True)\nclass Settings__I__:\n    t: float = 5.0",
        init="self.s__I__ = Settings__I__()",
    ),
    Place(
        "settings_slots",
        "self.s__I__.t",
        "ME.s__I__.t = VALUE",
        module='class Settings__I__:\n    __slots__ = ("t",)\n    def __init__(self):\n        self.t = 5.0',
        init="self.s__I__ = Settings__I__()",
    ),
    Place(
        "settings_property",
        "self.s__I__.value",
        "ME.s__I__.e = VALUE",
        module="class Schedule__I__:\n    def __init__(self):\n        self.e = 5.0\n    @property\n    def value(self):\n        return self.e * 1.0",
        init="self.s__I__ = Schedule__I__()",
    ),
    Place(
        "settings_getattr",
        "self.s__I__.t",
        'ME.s__I__.values["t"] = VALUE',
        module='class Lazy__I__:\n    def __init__(self):\n        self.values = {"t": 5.0}\n    def __getattr__(self, name):\n        return self.__dict__["values"][name]',
        init="self.s__I__ = Lazy__I__()",
    ),
    Place(
        "settings_dict_subclass",
        "self.s__I__.t",
        'ME.s__I__["t"] = VALUE',
        module="class Config__I__(dict):\n    __getattr__ = dict.__getitem__",
        init="self.s__I__ = Config__I__(t=5.0)",
    ),
    Place(
        "settings_callable",
        "self.s__I__()",
        "ME.s__I__.e = VALUE",
        module="class Schedule__I__:\n    e = 5.0\n    def __call__(self):\n        return self.e",
        init="self.s__I__ = Schedule__I__()",
    ),
    Place(
        "settings_metaclass",
        "Settings__I__.t",
        "Meta__I__.value = VALUE",
        module="class Meta__I__(type):\n    value = 5.0\n    @property\n    def t(cls):\n        return Meta__I__.value\nclass Settings__I__(metaclass=Meta__I__):\n    pass",
    ),
    Place(
        "property_reads_global",
        "self.t__I__",
        'T__I__["t"] = VALUE',
        module='T__I__ = {"t": 5.0}',
        klass='@property\ndef t__I__(self):\n    return T__I__["t"]',
    ),
    Place(
        "method_reads_global",
        "self.t__I__()",
        'T__I__["t"] = VALUE',
        module='T__I__ = {"t": 5.0}',
        klass='def t__I__(self):\n    return T__I__["t"]',
    ),
    Place(
        "static_method_reads_global",
        "self.t__I__()",
        'T__I__["t"] = VALUE',
        module='T__I__ = {"t": 5.0}',
        klass='@staticmethod\ndef t__I__():\n    return T__I__["t"]',
    ),
    Place(
        "class_method_reads_class",
        "self.t__I__()",
        "type(ME).k__I__ = VALUE",
        klass="k__I__ = 5.0\n@classmethod\ndef t__I__(cls):\n    return cls.k__I__",
    ),
    Place(
        "descriptor_reads_global",
        "self.t__I__",
        "T__I__[0] = VALUE",
        module="T__I__ = [5.0]\nclass Reads__I__:\n    def __get__(self, instance, owner):\n        return T__I__[0]",
        klass="t__I__ = Reads__I__()",
    ),
    Place(
        "lambda_reads_global",
        "self.f__I__()",
        "T__I__[0] = VALUE",
        module="T__I__ = [5.0]",
        init="self.f__I__ = lambda: T__I__[0]",
    ),
    Place(
        "function_reads_global",
        "self.f__I__()",
        "T__I__[0] = VALUE",
        module="T__I__ = [5.0]\ndef read__I__():\n    return T__I__[0]",
        init="self.f__I__ = read__I__",
    ),
    Place(
        "function_calls_function",
        "outer__I__()",
        'globals()["T__I__"] = VALUE',
        module="T__I__ = 5.0\ndef inner__I__():\n    return T__I__\ndef outer__I__():\n    return inner__I__()",
    ),
    Place(
        "lambda_replaced", "self.f__I__()", "ME.f__I__ = lambda value=VALUE: value", init="self.f__I__ = lambda: 5.0"
    ),
    Place(
        "function_defaults",
        "read__I__()",
        "read__I__.__defaults__ = (VALUE,)",
        module="def read__I__(t=5.0):\n    return t",
    ),
    Place(
        "function_attribute",
        "read__I__.t",
        "read__I__.t = VALUE",
        module="def read__I__():\n    return None\nread__I__.t = 5.0",
    ),
    Place(
        "closure_cell",
        "READ__I__()",
        "WRITE__I__(VALUE)",
        module="def cell__I__():\n    t = 5.0\n    def read():\n        return t\n    def write(value):\n        nonlocal t\n        t = value\n    return read, write\nREAD__I__, WRITE__I__ = cell__I__()",
    ),
    Place(
        "partial_replaced",
        "self.f__I__(1.0)",
        "ME.f__I__ = partial(operator.mul, VALUE)",
        init="self.f__I__ = partial(operator.mul, 5.0)",
    ),
    Place(
        "partial_keywords",
        "self.f__I__()",
        'ME.f__I__.keywords["t"] = VALUE',
        module="def give__I__(t):\n    return t",
        init="self.f__I__ = partial(give__I__, t=5.0)",
    ),
    Place(
        "bound_method_held",
        "self.f__I__()",
        "OWNER__I__.t = VALUE",
        module="class Owner__I__:\n    t = 5.0\n    def read(self):\n        return self.t\nOWNER__I__ = Owner__I__()",
        init="self.f__I__ = OWNER__I__.read",
    ),
    Place("environ", 'float(os.environ.get("CASE_T", "5.0"))', 'os.environ["CASE_T"] = str(VALUE)'),
    Place("getenv", 'float(os.getenv("CASE_T", "5.0"))', 'os.environ["CASE_T"] = str(VALUE)'),
    Place(
        "contextvar",
        "T__I__.get()",
        "T__I__.set(VALUE)",
        module='T__I__ = contextvars.ContextVar("t__I__", default=5.0)',
    ),
    Place(
        "weak_reference",
        "self.r__I__().t",
        "T__I__.t = VALUE",
        module="class Target__I__:\n    t = 5.0\nT__I__ = Target__I__()",
        init="self.r__I__ = weakref.ref(T__I__)",
    ),
    Place(
        "other_module",
        "CONFIG__I__.t",
        "CONFIG__I__.t = VALUE",
        module='CONFIG__I__ = types.ModuleType("config__I__")\nCONFIG__I__.t = 5.0',
    ),
    Place(
        "dropout_p",
        "self.d__I__.p * 10 + 0.5",
        "ME.d__I__.p = min(VALUE, 9) / 10",
        init="self.d__I__ = nn.Dropout(0.5)",
    ),
    Place(
        "attribute_of_layer",
        "self.l__I__.t",
        "ME.l__I__.t = VALUE",
        init="self.l__I__ = nn.Identity()\nself.l__I__.t = 5.0",
    ),
    Place("text", 'float(self.t__I__.split("=")[1])', 'ME.t__I__ = "t=" + str(VALUE)', init='self.t__I__ = "t=5.0"'),
    Place("tuple", "self.t__I__[1]", "ME.t__I__ = (0, VALUE)", init="self.t__I__ = (0, 5.0)"),
    Place(
        "file",
        "float(Path(__file__ + '.t').read_text())",
        "Path(__file__ + '.t').write_text(str(VALUE))",
        init="Path(__file__ + '.t').write_text('5.0')",
    ),
    Place(
        "fit_attribute", "self.fit__I__.t", "ME.fit__I__.t = VALUE", init="self.fit__I__ = argparse.Namespace(t=5.0)"
    ),
    Place("complex_number", "self.t__I__.real", "ME.t__I__ = complex(VALUE, 1)", init="self.t__I__ = complex(5.0, 1)"),
    Place("decimal", "float(self.t__I__)", "ME.t__I__ = Decimal(VALUE)", init="self.t__I__ = Decimal(5)"),
    Place("fraction", "float(self.t__I__)", "ME.t__I__ = Fraction(VALUE)", init="self.t__I__ = Fraction(5)"),
]


USES = [
    "h = h / t",
    "h = h * (1 + 0.1 * t)",
    "h = torch.tanh(h) if t > 2 else torch.relu(h)",
    "for _ in range(int(t)):\n    h = h * 0.9",
    "h = F.leaky_relu(h, 0.05 * t)",
    "h = h.clamp(-t, t)",
    "h = F.dropout(h, min(t, 9) / 10, True)",
    "h = torch.softmax(h / t, 1) + h",
    "h = h + t",
    "h = torch.add(h, h.detach(), alpha=0.1 * t)",
    "h = h * torch.full((h.shape[1],), float(t))",
    "h = h if t > 3 else h.detach() + 0 * h",
]
TENSOR_USES = [use for use in USES if not re.search(r"if t|int\(t|leaky|clamp|dropout|alpha|float\(t", use)]

TIMES = [
    "def on_batch_begin(self, fit):\n    WRITE(max(0.5, 5.0 - 0.2 * fit.iteration))",
    "def on_batch_end(self, fit):\n    WRITE(max(0.5, 5.0 - 0.2 * fit.iteration))",
    "def on_epoch_begin(self, fit):\n    WRITE(5.0 / (1 + fit.epoch))",
    "def on_epoch_end(self, fit):\n    WRITE(4.0 - fit.epoch)",
    "def on_train_begin(self, fit):\n    WRITE(2.0)",
    "def on_train_end(self, fit):\n    WRITE(1.5)",
    "def on_backward_end(self, fit):\n    WRITE(1.0 + fit.iteration % 4)",
    "def on_batch_begin(self, fit):\n    if fit.iteration == 17:\n        WRITE(1.0)",
    "def on_batch_end(self, fit):\n    if fit.iteration % 8 == 7:\n        WRITE(1.0 + fit.iteration / 8)",
    "def on_batch_begin(self, fit):\n    WRITE(5.0)",
    "def on_batch_end(self, fit):\n    WRITE(1.0 + min(float(fit.loss), 3.0))",
]


def read_part(random: Random) -> Part:
    """A number that a callback changes, or that forward itself changes, or that nobody does."""
    place = random.choice(PLACES)
    use = random.choice(USES if place.is_number else TENSOR_USES)
    lines = place.init, place.module, place.klass
    init, module, klass = (line + "\n" if line else "" for line in lines)
    who = random.choices(["callback", "forward", "kept only", "nobody"], [6, 3, 1, 1])[0]
    read = f"t = {place.read}\n"
    forward, callback = f"{read}{use}\n", ""
    value = f"({place.read}) % 5 + 0.5"
    if who == "callback":
        callback = (
            re.sub(r"WRITE\((.*)\)$", lambda m: place.write.replace("VALUE", m[1]), random.choice(TIMES), flags=re.M)
            + "\n"
        )
    elif who == "forward":
        forward = f"{read}{use}\n{place.write.replace('VALUE', value)}\n"
        if not place.is_number:
            forward = forward.replace(value, "float(t) % 5 + 0.5")
    elif who == "kept only":
        forward = f"{place.write.replace('VALUE', value if place.is_number else '2.0')}\n"
    return Part(f"{place.name} changed by {who}", "read", module, klass, init, forward, callback, place.bases)


CALLBACKS = _parsed("""
=== dropout_p_per_step [callback]
--- init
self.drop__I__ = nn.Dropout(0.5)
--- forward
h = self.drop__I__(h)
--- callback
def on_batch_begin(self, fit):
    ME.drop__I__.p = max(0.0, 0.5 - 0.02 * fit.iteration)
=== batch_norm_momentum_per_step [callback]
--- init
self.bn__I__ = nn.BatchNorm1d(__H__)
--- forward
h = self.bn__I__(h)
--- callback
def on_batch_begin(self, fit):
    ME.bn__I__.momentum = 0.5 / (1 + fit.iteration)
=== batch_norm_eval_in_mid_fit [callback]
--- init
self.bn__I__ = nn.BatchNorm1d(__H__)
--- forward
h = self.bn__I__(h)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.bn__I__.eval()
=== batch_norm_eval_per_epoch [callback]
--- init
self.bn__I__ = nn.BatchNorm1d(__H__)
--- forward
h = self.bn__I__(h)
--- callback
def on_epoch_begin(self, fit):
    ME.bn__I__.eval()
=== layer_eps_changed [callback]
--- init
self.ln__I__ = nn.LayerNorm(__H__)
--- forward
h = self.ln__I__(h)
--- callback
def on_epoch_begin(self, fit):
    ME.ln__I__.eps = 0.1 * (1 + fit.epoch)
=== leaky_slope_changed [callback]
--- init
self.act__I__ = nn.LeakyReLU(0.1)
--- forward
h = self.act__I__(h)
--- callback
def on_batch_end(self, fit):
    ME.act__I__.negative_slope = 0.5 / (1 + fit.iteration)
=== act_replaced [callback]
--- init
self.act__I__ = nn.ReLU()
--- forward
h = self.act__I__(h)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 11:
        ME.act__I__ = nn.Tanh()
=== sequential_item_replaced [callback]
--- init
self.seq__I__ = nn.Sequential(nn.Linear(__H__, __H__), nn.ReLU())
--- forward
h = self.seq__I__(h)
--- callback
def on_epoch_end(self, fit):
    ME.seq__I__[1] = nn.Tanh()
=== forward_replaced [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_epoch_end(self, fit):
    lin = ME.lin__I__
    lin.forward = lambda h: F.linear(h, lin.weight) * 0.5
=== class_forward_replaced [callback]
--- module
class Layer__I__(nn.Module):
    def forward(self, h):
        return torch.tanh(h)
--- init
self.lin__I__ = Layer__I__()
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 7:
        Layer__I__.forward = lambda self, h: torch.relu(h)
=== forward_hook_in_mid_fit [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.lin__I__.register_forward_hook(lambda module, args, output: output * 0.5)
=== forward_hook_at_epoch [callback]
--- module
SEEN__I__ = []
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_epoch_begin(self, fit):
    if fit.epoch == 1:
        ME.lin__I__.register_forward_hook(lambda module, args, output: SEEN__I__.append(1))
=== pre_hook_in_mid_fit [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 5:
        ME.lin__I__.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
=== backward_hook_in_mid_fit [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h * 1.0)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.lin__I__.register_full_backward_hook(lambda module, grads, _: (grads[0] * 0.5,))
=== parameter_hook_in_mid_fit [callback]
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
--- forward
h = h * self.w__I__
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.w__I__.register_hook(lambda grad: grad * 0.5)
=== accumulate_hook_at_epoch [callback]
--- module
NORMS__I__ = []
--- init
self.w__I__ = nn.Parameter(torch.ones(__H__))
--- forward
h = h * self.w__I__
--- callback
def on_epoch_begin(self, fit):
    if fit.epoch == 1:
        ME.w__I__.register_post_accumulate_grad_hook(lambda p: NORMS__I__.append(float(p.grad.norm())))
=== global_forward_hook [callback]
--- module
CALLS__I__ = []
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_epoch_begin(self, fit):
    self.handle = nn.modules.module.register_module_forward_hook(lambda *args: CALLS__I__.append(1) if len(CALLS__I__) < 500 else None)
def on_epoch_end(self, fit):
    self.handle.remove()
=== hook_removed_in_mid_fit [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
self.handle__I__ = self.lin__I__.register_forward_hook(lambda module, args, output: output * 0.5)
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.handle__I__.remove()
=== frozen_in_mid_fit [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_begin(self, fit):
    if fit.iteration == 9:
        ME.lin__I__.requires_grad_(False)
=== frozen_at_epoch [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_epoch_begin(self, fit):
    ME.lin__I__.requires_grad_(fit.epoch != 1)
=== unfrozen_at_epoch [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__).requires_grad_(False)
--- forward
h = self.lin__I__(h)
--- callback
def on_epoch_begin(self, fit):
    if fit.epoch == 1:
        ME.lin__I__.requires_grad_(True)
=== frozen_every_other_step [callback]
--- init
self.lin__I__ = nn.Linear(__H__, __H__)
--- forward
h = self.lin__I__(h)
--- callback
def on_batch_begin(self, fit):
    ME.lin__I__.weight.requires_grad_(fit.iteration % 2 == 0)
=== weights_clamped [callback]
--- callback
def on_batch_end(self, fit):
    for p in fit.model.parameters():
        p.data.clamp_(-0.5, 0.5)
=== weights_replaced_at_epoch [callback]
--- callback
def on_epoch_begin(self, fit):
    for p in fit.model.parameters():
        p.data = p.data * 0.9
=== weights_loaded_at_epoch [callback]
--- callback
def on_epoch_end(self, fit):
    fit.model.load_state_dict({name: value * 0.9 for name, value in fit.model.state_dict().items()})
=== weights_assigned_in_mid_fit [callback]
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 9:
        state = {name: value.clone() for name, value in fit.model.state_dict().items()}
        fit.model.load_state_dict(state)
=== weight_noise [callback]
--- callback
def on_batch_end(self, fit):
    with torch.no_grad():
        for p in fit.model.parameters():
            p.add_(torch.randn_like(p), alpha=0.001)
=== gradient_noise [callback]
--- callback
def on_backward_end(self, fit):
    for p in fit.model.parameters():
        if p.grad is not None:
            p.grad.add_(torch.randn_like(p), alpha=0.01)
=== gradients_scaled [callback]
--- callback
def on_backward_end(self, fit):
    for p in fit.model.parameters():
        if p.grad is not None:
            p.grad.mul_(0.5)
=== gradients_kept [callback]
--- module
KEPT__I__ = []
--- callback
def on_backward_end(self, fit):
    KEPT__I__.append([None if p.grad is None else p.grad.clone() for p in fit.model.parameters()])
    del KEPT__I__[:-2]
=== gradients_kept_by_reference [callback]
--- module
KEPT__I__ = []
--- callback
def on_backward_end(self, fit):
    KEPT__I__.append([p.grad for p in fit.model.parameters()])
    del KEPT__I__[:-2]
=== losses_kept [callback]
--- module
KEPT__I__ = []
--- callback
def on_batch_end(self, fit):
    KEPT__I__.append(fit.loss)
=== loss_scaled [callback]
--- callback
def on_backward_begin(self, fit):
    fit.loss = fit.loss * 0.5
=== draws_from_torch [callback]
--- callback
def on_batch_begin(self, fit):
    torch.rand(1)
=== draws_from_python [callback]
--- callback
def on_batch_end(self, fit):
    random.random()
    np.random.rand()
=== input_noise_callback [callback]
--- callback
def on_batch_begin(self, fit):
    if isinstance(fit.xb, torch.Tensor) and fit.xb.is_floating_point():
        fit.xb = fit.xb + 0.1 * torch.randn_like(fit.xb)
=== mixup_callback [callback]
--- callback
def on_batch_begin(self, fit):
    if isinstance(fit.xb, torch.Tensor) and fit.xb.is_floating_point():
        fit.xb = 0.7 * fit.xb + 0.3 * fit.xb.flip(0)
=== batch_cut_callback [callback]
--- callback
def on_batch_begin(self, fit):
    if fit.iteration % 3 == 0 and isinstance(fit.xb, torch.Tensor):
        fit.xb, fit.yb = fit.xb[:5], fit.yb[:5]
=== forward_on_the_side [callback]
--- module
SEEN__I__ = []
--- callback
def on_batch_end(self, fit):
    if fit.iteration % 6 == 0:
        with torch.no_grad():
            out = fit.model(*fit.xb) if isinstance(fit.xb, list) else fit.model(fit.xb)
        SEEN__I__.append(out.detach().float().sum())
=== forward_in_eval_on_the_side [callback]
--- callback
def on_epoch_begin(self, fit):
    fit.model.eval()
    fit.model.train()
=== model_left_in_eval [callback]
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 6:
        fit.model.eval()
=== steps_skipped [callback]
--- callback
def on_backward_end(self, fit):
    fit.skip_step = fit.iteration % 4 == 3
=== stops_in_mid_fit [callback]
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 15:
        fit.stop("enough")
=== raises_in_mid_fit [callback]
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 15:
        raise ValueError("a user's own error")
=== optimizer_state_changed [callback]
--- callback
def on_epoch_begin(self, fit):
    for group in fit.opt.torch_opt.param_groups:
        group["eps" if "eps" in group else "weight_decay"] = 1e-3
=== optimizer_state_cleared [callback]
--- callback
def on_epoch_end(self, fit):
    fit.opt.torch_opt.state.clear()
=== schedule_replaced [callback]
--- callback
def on_epoch_end(self, fit):
    fit.schedule = lambda step: ([0.005], 0.9) if len(fit.opt.groups) < 3 else ([0.005] * (len(fit.opt.groups) // 2), 0.9)
=== buffers_reset_at_epoch [callback]
--- init
self.register_buffer("sum__I__", torch.zeros(__H__))
--- forward
self.sum__I__.add_(h.detach().mean(0))
h = h - 0.05 * self.sum__I__
--- callback
def on_epoch_begin(self, fit):
    ME.sum__I__.zero_()
=== buffers_replaced_at_epoch [callback]
--- init
self.register_buffer("sum__I__", torch.zeros(__H__))
--- forward
self.sum__I__.add_(h.detach().mean(0))
h = h - 0.05 * self.sum__I__
--- callback
def on_epoch_begin(self, fit):
    ME.sum__I__ = torch.zeros(__H__)
=== parameter_added_to_groups [callback]
--- callback
def on_epoch_end(self, fit):
    for module in fit.model.modules():
        module.extra__I__ = fit.epoch
=== torch_function_replaced [callback]
--- module
RELU__I__ = F.relu
--- forward
h = F.relu(h)
--- callback
def on_epoch_begin(self, fit):
    F.relu = torch.tanh if fit.epoch else RELU__I__
def on_train_end(self, fit):
    F.relu = RELU__I__
=== torch_layer_replaced [callback]
--- module
FORWARD__I__ = nn.Linear.forward
--- callback
def on_epoch_begin(self, fit):
    nn.Linear.forward = (lambda self, h: F.linear(h, self.weight)) if fit.epoch else FORWARD__I__
def on_train_end(self, fit):
    nn.Linear.forward = FORWARD__I__
=== class_replaced_in_mid_fit [callback]
--- module
class Before__I__(nn.Module):
    def forward(self, h):
        return torch.tanh(h)
class After__I__(nn.Module):
    def forward(self, h):
        return torch.relu(h)
--- init
self.layer__I__ = Before__I__()
--- forward
h = self.layer__I__(h)
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 7:
        ME.layer__I__.__class__ = After__I__
=== code_replaced_in_mid_fit [callback]
--- module
def before__I__(h):
    return h * 0.9
def after__I__(h):
    return h * 0.5
--- forward
h = before__I__(h)
--- callback
def on_batch_end(self, fit):
    if fit.iteration == 7:
        before__I__.__code__ = after__I__.__code__
=== autocast_in_an_epoch [callback]
--- callback
def on_epoch_begin(self, fit):
    torch.set_autocast_dtype("cpu", torch.bfloat16)
    torch.set_autocast_enabled("cpu", fit.epoch == 1)
def on_train_end(self, fit):
    torch.set_autocast_enabled("cpu", False)
=== default_dtype_in_an_epoch [callback]
--- forward
h = (h * torch.full((__H__,), 0.1)).to(h.dtype)
--- callback
def on_epoch_begin(self, fit):
    torch.set_default_dtype(torch.float64 if fit.epoch == 1 else torch.float32)
def on_epoch_end(self, fit):
    torch.set_default_dtype(torch.float32)
def on_train_end(self, fit):
    torch.set_default_dtype(torch.float32)
=== parameters_tied_at_epoch [callback]
--- init
self.a__I__, self.b__I__ = nn.Linear(__H__, __H__), nn.Linear(__H__, __H__)
--- forward
h = self.b__I__(torch.tanh(self.a__I__(h)))
--- callback
def on_epoch_begin(self, fit):
    if fit.epoch == 1:
        ME.b__I__.weight = ME.a__I__.weight
=== sees_only [callback]
--- module
SEEN__I__ = []
--- callback
def on_batch_end(self, fit):
    SEEN__I__.append((fit.iteration, fit.num_batch, float(fit.loss)))
def on_train_end(self, fit):
    SEEN__I__.append(("end", fit.stop_reason))
=== grad_mode_left [callback]
--- callback
def on_train_begin(self, fit):
    torch.set_flush_denormal(False)
""")

LIBRARY_CALLBACKS = [
    "onecycle.GradientClip(0.1)",
    "onecycle.EMA(0.9)",
    "onecycle.GradientAccumulation(2)",
    "onecycle.EarlyStopping(patience=1)",
]
