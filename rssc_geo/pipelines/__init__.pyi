from .caption import CaptionResult as CaptionResult
from .zero_shot import read_classes as read_classes
