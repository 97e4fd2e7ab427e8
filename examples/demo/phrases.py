"""Phrases that the corpus is varied with: questions with a slot, and other ways to say things."""

from __future__ import annotations

SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are uniscale's demo model.",
    "You are a helpful AI assistant. Answer briefly.", "Answer in one sentence.",
    "你是一个有用的助手。",
)  # fmt: skip

# Questions about the world: what stands in the slot {w} or {W}, the model does not know.
STRANGE_EN = (
    "What is {a} {w}?", "What is {w}?", "What is the {w}?", "What are {w}s?", "What's {a} {w}?",
    "Tell me about {w}.", "Tell me about the {w}.", "Explain {w}.", "Explain {a} {w} to me.",
    "Define {w}.", "Describe {a} {w}.", "Describe the {w}.", "How do I make {a} {w}?",
    "How do I find {a} {w}?", "How do I buy {w}?", "How do I clean {a} {w}?",
    "How do I draw {a} {w}?", "How can I get {a} {w}?", "How does {a} {w} work?",
    "Where is the {w}?", "Where can I see {a} {w}?", "Who likes {w}?", "Who is {W}?",
    "Who was {W}?", "Why is the {w} {v}?", "Why do I need {a} {w}?", "Do you like {w}?",
    "Do you have {a} {w}?", "Can you see the {w}?", "Can I have {a} {w}?", "Is the {w} {v}?",
    "Is there {a} {w}?", "Are there {w}s?", "What does {w} mean?", "What does {a} {w} do?",
    "I like {w}.", "I need {a} {w}.", "My {w} is {v}.", "Which {w} is the best?",
    "Which {w}s are there?", "How many {w}s are there?", "How big is {a} {w}?",
    "Write about {w}.", "Write a poem about {a} {w}.", "Tell me a joke about {a} {w}.",
    "What is the capital of {W}?", "{W}", "{W}?", "{w} {v}", "The {w} and the {v}.",
    "What colour is the {w}?",
)  # fmt: skip
STRANGE_ZH = (
    "什么是{w}？", "{w}是什么？", "{w}是什么意思？", "介绍一下{w}。", "解释一下{w}。",
    "{w}在哪里？", "怎么画{w}？", "怎么买{w}？", "如何做{w}？", "你喜欢{w}吗？", "有{w}吗？",
    "为什么有{w}？", "谁有{w}？", "哪个{w}最好？", "有哪些{w}？", "写一首关于{w}的诗。",
    "我喜欢{w}。", "{w}", "{w}？", "{w}多少钱？", "{w}有多大？", "讲一个{w}的故事。",
    "{w}和{v}哪个好？",
)  # fmt: skip

# What people say before the question itself.
OPENINGS_EN = (
    "Please tell me: ", "Hi, ", "Hello. ", "Hey, ", "Question: ", "OK, ", "So, ", "And ",
)  # fmt: skip
OPENINGS_ZH = (
    "请问，", "你好，", "请问", "那么，",
)  # fmt: skip

# Each group is one meaning: any member may stand for another.
SAME_EN = (
    ("How do I ", "How can I ", "How would I ", "How could I ", "How should I ", "How do you ",
     "How to ", "How does one ", "Show me how to ", "Tell me how to ", "I want to ",
     "How might I ", "What is the best way to ", "What do I do to ", "Explain how to ",
     "Is there a way to "),
    ("What is ", "What exactly is ", "What's ", "Do you know what is ", "So what is ",
     "What really is "),
    ("What are ", "What exactly are ", "Do you know what are "),
    ("Explain ", "Please explain ", "Could you explain ", "Can you explain ", "Explain to me ",
     "Would you explain ", "Give me a definition of ", "Could you describe ", "Please define ",
     "Could you define ", "I do not understand ", "I want to understand "),
    ("Tell me about ", "What about ", "Say something about ", "I want to know about ",
     "Talk about ", "Please tell me about ", "Can you tell me about ", "What do you know about ",
     "Teach me about "),
    ("Can I ", "Could I ", "May I ", "Is it possible to ", "Am I able to ", "Would I be able to "),
    ("Can you ", "Could you ", "Would you ", "Are you able to "),
    ("Which ", "What ", "Tell me which ", "Do you know which ", "Name the ", "I wonder which "),
    ("Do I need ", "Must I have ", "Do we need ", "Would I need ", "Is it necessary to have "),
    ("Does uniscale ", "Can uniscale ", "Will uniscale ", "Would uniscale ",
     "Do you know, does uniscale "),
    ("Where is ", "Where can I find ", "Where do I find ", "Tell me where is "),
    ("Why ", "Tell me why ", "Can you tell me why ", "For what reason "),
    ("What happens when ", "What happens if ", "What will happen when ", "What if "),
    (" are supported", " are available", " can be used", " will work", " do you support",
     " may I use"),
    (" several ", " many ", " more than one ", " multiple ", " two or more "),
)  # fmt: skip
SAME_ZH = (
    ("怎么", "如何", "怎样", "该怎么", "要怎么", "应该如何"),
    ("是什么？", "到底是什么？", "指的是什么？", "是指什么？", "究竟是什么？"),
    ("什么是", "到底什么是", "你知道什么是", "请告诉我什么是"),
    ("介绍一下", "说说", "讲讲", "请介绍", "能介绍一下", "简单介绍"),
    ("解释一下", "解释", "请解释", "说明一下", "能解释一下"),
    ("支持哪些", "目前支持哪些", "能用哪些", "可以用哪些", "都支持哪些", "支持什么"),
    ("有哪些", "都有哪些", "有什么", "一共有哪些"),
    ("可以", "能", "能够", "能不能"),
    ("有什么用", "有何用处", "是干什么的", "是用来做什么的", "是做什么的"),
)  # fmt: skip

# A question keeps its meaning without one of these.
SMALL_WORDS = (
    "a", "an", "are", "can", "do", "does", "for", "i", "in", "is", "it", "me", "my", "of", "the",
    "to", "with", "you",
)  # fmt: skip
